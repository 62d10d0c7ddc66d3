// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Counts the frames of interfaces by flow, and hands over those that say more
 * than a number: names, states, ends, whatever is not plain TCP or UDP. All
 * interfaces share the tables and the ring. Each has a place in `slots`, and
 * a program of a few instructions that writes down which and then calls
 * this one (frames/entry.rs). It is the filter of a packet socket, and takes
 * nothing into that socket's queue: it sees what the socket would.
 *
 * What is only counted is added to sums that never go back. A frame that is
 * handed over brings along the sums of its flow as they stood before it, so
 * that whoever reads first takes in what was only counted and then the frame.
 * A frame that finds the ring full is counted instead; one that has no flow
 * either is counted as lost.
 *
 * Built by `cargo xtask bpf` with clang 14 into frames.bpf.o, which is
 * committed beside it. The layouts of `struct` and maps here are read by
 * frames/layout.rs.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

/* Numbers of linux/bpf.h. */
#define MAP_HASH 1
#define MAP_ARRAY 2
#define MAP_PROG_ARRAY 3
#define MAP_RINGBUF 27
#define NOEXIST 1
#define NO_PREALLOC 1
#define MMAPABLE 1024
#define NO_WAKEUP 1
#define FORCE_WAKEUP 2
/* Bytes of the frame that the socket is to get. */
#define NONE 0
/* `pkt_type` of what the host sends (linux/if_packet.h). */
#define PACKET_OUTGOING 4

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*load_bytes)(const void *skb, u32 offset, void *to, u32 size) = (void *)26;
static u64 (*boot_ns)(void) = (void *)125;
static void *(*ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*ring_submit)(void *data, u64 flags) = (void *)132;
static u64 (*coarse_ns)(void) = (void *)160;

/* The head of linux/bpf.h's, as far as it is used. */
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto;
	u32 priority, ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid;
	u32 data, data_end, napi_id, family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4];
	u32 remote_port, local_port, data_meta;
	u64 flow_keys;
	u64 tstamp;
	u32 wire_len, gso_segs;
	u64 sk;
	u32 gso_size;
};

#define BE16(number) ((u16)((((number)&0xff) << 8) | ((number) >> 8)))
#define IPV4 BE16(0x0800)
#define IPV6 BE16(0x86dd)
#define TCP 6
#define UDP 17
#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16
#define URG 32

/* The host receives what the sandbox sent. */
#define FROM_SANDBOX 0
#define TO_SANDBOX 1

/* So much of each direction of a connection is handed over. */
#define START (66 * 1024)
/* What each interface may have of the ring, in bytes, and of the table, in flows,
 * however much the others have. */
#define RING_FLOOR 16384
#define FLOW_FLOOR 128
/* Flows that `release` is run for at once. */
#define RELEASED 32

/* States of a flow. One that is silent is asked to leave, and stays where a frame
 * comes. Once every program that looked before has ended, it is let go where none
 * came: from then on nobody counts in it, so that its sums are the last. */
#define STAYS 0
#define ASKED 1
#define LEAVES 2

/* How often at least a frame of a flow is handed over, in bytes. */
#define PULSE_SHIFT 18
/* Datagrams of a flow among which a question of DNS to an odd port is looked for. */
#define QUESTIONS 8
/* What is kept of a long frame that begins nothing. */
#define LONG_HEADERS 256
/* No TLS alert is longer. */
#define ALERT 64

/* A silence this long ends a call; 0: none does. */
volatile const u64 pause_ns = 0;
/* Bytes that are handed over of a frame. */
volatile const u32 snap_length = 4096;
/* Bytes of the ring that one interface may fill. */
volatile const u64 ring_share = 1 << 20;
/* Flows that one interface may have in the table. */
volatile const u64 flow_share = 65536;
/* How full the ring and the table may be for who has its floor already. */
volatile const u64 ring_common = 1 << 20;
volatile const u64 flow_common = 65536;
/* The place in `slots` of the sums of all. */
volatile const u32 everyone = 0;

/* Who reads is woken at most this often, and looks again by itself for as long
 * as there is something (frames.rs). */
#define WAKE_NS 1000000

/* Addresses and ports as they stand in frames; IPv4 addresses with zeros behind. */
struct key {
	/* The number of the interface's watch, which no other ever has. */
	u32 owner;
	u32 sandbox[4];
	u32 peer[4];
	u16 sandbox_port;
	u16 peer_port;
	/* Identifier of the tag that the kernel took out, 0 for none. */
	u16 vlan;
	u8 protocol;
	u8 version;
};

/* 64 bytes, as a cache has them. */
struct direction {
	/* Sums over what was only counted. */
	u64 frames;
	u64 bytes;
	u64 payload;
	/* When the latest of that was seen, to the tick: CLOCK_MONOTONIC_COARSE,
	 * as all times here but where another clock is named. */
	u64 last_ns;
	/* When the latest payload was seen, counted or handed over. */
	u64 payload_ns;
	/* Payload that was seen, counted or handed over, without what was sent again.
	 * Beyond 32 bits it goes on from `START`. */
	u32 stream;
	/* TCP: the number that comes next, and the highest acknowledged. Else `next` is
	 * how many frames were looked into for a question of DNS. */
	u32 next;
	u32 ack;
	/* Segments of TCP that offloads make of the counted frames, beyond those.
	 * Goes on from 0 after 32 bits. */
	u32 segments;
	/* What is known of TCP: BEGUN, ACKNOWLEDGES, PLAIN_ACK. */
	u8 known;
	/* A frame went this way. */
	u8 seen;
	/* It has payload that the other side has not answered. */
	u8 unanswered;
	/* Every frame is handed over; the same in both. */
	u8 whole;
	/* In the direction to the sandbox: frames handed over of both, from 0 again
	 * after 32 bits. Last of all, because it must be read after the sums. */
	u32 events;
};

/* `next` is known; `ack` is; there was an acknowledgement without payload. */
#define BEGUN 1
#define ACKNOWLEDGES 2
#define PLAIN_ACK 4

/* With its key and what the kernel puts in front of both a flow takes 256 bytes, and a
 * direction lies in one line of a cache (kernel/bpf/hashtab.c: struct htab_elem,
 * kernel/bpf/memalloc.c: LLIST_NODE_SZ). */
struct flow {
	/* When it was noted down, by CLOCK_BOOTTIME: tells it from an earlier one
	 * of the same key. */
	u64 born_ns;
	/* Whom the sandbox's latest frame was for and from, by MACs as they stand there. */
	u32 macs[3];
	u32 state;
	struct direction directions[2];
};

struct event {
	/* By CLOCK_BOOTTIME. */
	u64 at_ns;
	/* Of its flow; 0 where there is none. */
	u64 born_ns;
	/* Of the whole frame, and what is handed over of it. */
	u32 length;
	u32 captured;
	u16 vlan_tci;
	u8 tagged;
	u8 direction;
	/* The interface's place in `slots`. */
	u32 slot;
	/* Payload of each segment where an offload is to cut the frame, else 0. */
	u32 segment;
	/* All zeros but for the owner where the frame belongs to no flow. */
	struct key key;
	struct direction directions[2];
};

/* One interface. Memory that is shared with who reads. */
struct slot {
	/* Frames that were handed over to nobody and are in no sum, by direction. */
	u64 frames[2];
	u64 bytes[2];
	/* Frames that are in the sums but should have been handed over. */
	u64 unread;
	/* Frames that found no room for their flow, and were handed over for that. */
	u64 refused;
	/* Bytes put into the ring, and, written by who reads, taken out of it. */
	u64 handed;
	u64 taken;
	/* Flows put into the table, and, written by who reads, taken out of it. */
	u64 created;
	u64 removed;
	/* When who reads was woken for it last. */
	u64 woken_ns;
	/* Zero: nothing is counted or handed over any more. */
	u64 open;
	/* Written by who reads: which watch it is. */
	u64 owner;
	u64 unused[3];
};

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 65536);
	UINT(map_flags, NO_PREALLOC);
	TYPE(key, struct key);
	TYPE(value, struct flow);
} flows SEC(".maps");

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 4096);
	UINT(map_flags, MMAPABLE);
	TYPE(key, u32);
	TYPE(value, struct slot);
} slots SEC(".maps");

/* `frame`, for the programs on each interface. */
struct {
	UINT(type, MAP_PROG_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u32);
} shared SEC(".maps");

struct {
	UINT(type, MAP_RINGBUF);
	UINT(max_entries, 1 << 20);
} frames SEC(".maps");

struct ethernet {
	u8 to[6];
	u8 from[6];
	u16 type;
};
struct ipv4 {
	u8 words, service;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 sum;
	u32 from, to;
};
struct ipv6 {
	u32 version;
	u16 length;
	u8 next, hops;
	u32 from[4], to[4];
};
struct tcp {
	u16 from, to;
	u32 seq, ack;
	u8 offset, flags;
	u16 window, sum, urgent;
};
struct udp {
	u16 from, to, length, sum;
	/* The first bytes of the payload. */
	u16 start[4];
};
#define UDP_HEADER 8
union transport {
	struct tcp tcp;
	struct udp udp;
};

/* The first bytes of a frame. The verifier wants what lies on the stack aligned, which
 * addresses behind an Ethernet header are not. */
struct head {
	u16 unused;
	struct ethernet ethernet;
	union {
		struct {
			struct ipv4 ip;
			union transport next;
		} v4;
		struct {
			struct ipv6 ip;
			union transport next;
		} v6;
	};
};

/* What a frame is, as far as it can be a flow's. */
struct parsed {
	struct key key;
	u32 payload;
	/* What of it was not seen before, as far as that is known. */
	u32 fresh;
	u32 payload_at;
	u32 seq;
	u32 ack;
	u8 flags;
	u32 macs[3];
	/* The first bytes of a datagram's payload. */
	u16 start[4];
};

INLINE u16 swap16(u16 number)
{
	return __builtin_bswap16(number);
}

/* As the interface counts them, a tag too that the kernel took out. */
INLINE u64 bytes_of(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? 4 : 0);
}

/* What stands behind the IP header, which ends at the constant `at`; `have` bytes of
 * the frame were read, and the datagram ends at `end`. */
INLINE int transport(struct __sk_buff *skb, struct parsed *parsed, union transport *next, u32 at,
		     u32 have, u32 end, int direction)
{
	u16 from, to;
	u32 header;
	if (parsed->key.protocol == TCP) {
		struct tcp *tcp = &next->tcp;
		if (at + sizeof(*tcp) > have)
			return 0;
		from = tcp->from;
		to = tcp->to;
		parsed->seq = __builtin_bswap32(tcp->seq);
		parsed->ack = __builtin_bswap32(tcp->ack);
		parsed->flags = tcp->flags;
		header = (tcp->offset >> 4) * 4;
		if (header < sizeof(*tcp))
			return 0;
	} else if (parsed->key.protocol == UDP) {
		struct udp *udp = &next->udp;
		if (at + UDP_HEADER > have)
			return 0;
		from = udp->from;
		to = udp->to;
		header = UDP_HEADER;
		__builtin_memcpy(parsed->start, udp->start, sizeof(parsed->start));
	} else {
		return 0;
	}
	/* Neither cut short nor with anything behind it but a short frame's padding. */
	if (end > skb->len || at + header > end || (skb->len > 64 && skb->len > end + 8))
		return 0;
	parsed->key.sandbox_port = direction == FROM_SANDBOX ? from : to;
	parsed->key.peer_port = direction == FROM_SANDBOX ? to : from;
	parsed->payload_at = at + header;
	parsed->payload = end - at - header;
	parsed->fresh = parsed->payload;
	return 1;
}

INLINE int parse(struct __sk_buff *skb, struct parsed *parsed, int direction)
{
	struct head head = {0};
	struct key *key = &parsed->key;
	u32 have = sizeof(head) - sizeof(head.unused);
	if (skb->len < have)
		have = skb->len;
	/* The verifier forgets what it knew of a number that was moved about. */
	asm volatile("" : "+r"(have));
	if (have < sizeof(head.ethernet) || have > sizeof(head) - sizeof(head.unused) ||
	    load_bytes(skb, 0, &head.ethernet, have) < 0)
		return 0;
	key->vlan = skb->vlan_present ? skb->vlan_tci & 0x0fff : 0;
	__builtin_memcpy(parsed->macs, &head.ethernet, sizeof(parsed->macs));
	u32 *from = direction == FROM_SANDBOX ? key->sandbox : key->peer;
	u32 *to = direction == FROM_SANDBOX ? key->peer : key->sandbox;
	if (head.ethernet.type == IPV4) {
		struct ipv4 *ip = &head.v4.ip;
		if (ip->words != 0x45 || ip->fragment & BE16(0x3fff))
			return 0;
		u32 length = swap16(ip->length);
		if (length < sizeof(*ip))
			return 0;
		key->version = 4;
		key->protocol = ip->protocol;
		from[0] = ip->from;
		to[0] = ip->to;
		return transport(skb, parsed, &head.v4.next, 34, have, length + 14, direction);
	}
	if (head.ethernet.type == IPV6) {
		struct ipv6 *ip = &head.v6.ip;
		u32 length = swap16(ip->length);
		if ((ip->version & 0xf0) != 0x60 || length == 0)
			return 0;
		key->version = 6;
		key->protocol = ip->next;
		__builtin_memcpy(from, ip->from, 16);
		__builtin_memcpy(to, ip->to, 16);
		return transport(skb, parsed, &head.v6.next, 54, have, length + 54, direction);
	}
	return 0;
}

/* Ports whose payload is looked into, whatever it is: DNS, tunnels. */
INLINE int is_read(u16 port)
{
	switch (port) {
	case BE16(53):
	case BE16(2152):
	case BE16(3544):
	case BE16(4754):
	case BE16(4789):
	case BE16(5072):
	case BE16(6081):
		return 1;
	default:
		return 0;
	}
}

/* Whether a datagram may be the begin of QUIC or a Teredo packet between
 * peers, or a question of DNS to an odd port, which makes its whole flow one
 * that is read. */
INLINE int datagram_says_more(struct flow *flow, struct parsed *parsed, int asks)
{
	u16 *start = parsed->start;
	if (parsed->payload < sizeof(parsed->start))
		return 0;
	u8 first = start[0] & 0xff;
	if (first & 0x80) {
		u32 version = (u32)(start[0] >> 8) << 24 | (u32)swap16(start[1]) << 8 |
			      (start[2] & 0xff);
		if (version == 1 || version == 0x6b3343cf)
			return 1;
		if (version >= 0xff00001d && version <= 0xff000022)
			return 1;
	}
	if (first >> 4 == 6 && swap16(start[2]) + 40u == parsed->payload)
		return 1;
	if (asks && (swap16(start[1]) & ~0x0130) == 0 && start[2] == BE16(1) && start[3] == 0)
		flow->directions[0].whole = flow->directions[1].whole = 1;
	return 0;
}

INLINE int is_past(u32 number, u32 other)
{
	return (s32)(number - other) > 0;
}

/* Takes a segment into the state of its connection; whether it says more than
 * its length. */
INLINE int segment(struct __sk_buff *skb, struct direction *own, struct direction *other,
		   struct parsed *parsed)
{
	u32 payload = parsed->payload;
	int more = 0;
	if (parsed->flags & (SYN | FIN | RST | URG)) {
		more = 1;
		if (parsed->flags & SYN) {
			own->next = parsed->seq + 1;
			own->known = BEGUN;
			own->stream = 0;
			own->unanswered = 0;
			parsed->seq += 1;
		}
	}
	if (!own->seen)
		more = 1;
	if (parsed->flags & ACK) {
		if (!(own->known & ACKNOWLEDGES) || is_past(parsed->ack, own->ack)) {
			own->known |= ACKNOWLEDGES;
			own->ack = parsed->ack;
			more |= other->stream < START;
		}
		if (!payload && !(own->known & PLAIN_ACK)) {
			own->known |= PLAIN_ACK;
			more = 1;
		}
	}
	if (payload) {
		u32 next = parsed->seq + payload;
		more |= !(own->known & BEGUN) || parsed->seq != own->next || own->stream < START;
		if (!(own->known & BEGUN) || is_past(next, own->next)) {
			if (own->known & BEGUN && next - own->next < payload)
				parsed->fresh = next - own->next;
			own->next = next;
			own->known |= BEGUN;
		} else {
			parsed->fresh = 0;
		}
		if (other->unanswered && (!(parsed->flags & ACK) || !is_past(other->next, parsed->ack))) {
			other->unanswered = 0;
			more = 1;
		}
		if (payload <= ALERT) {
			u8 kind = 0;
			load_bytes(skb, parsed->payload_at, &kind, 1);
			more |= kind == 21 || (kind == 23 && payload <= 24);
		}
	}
	return more;
}

INLINE int datagram(struct flow *flow, struct direction *own, struct direction *other,
		    struct parsed *parsed, int direction)
{
	int asks = direction == FROM_SANDBOX && own->next < QUESTIONS;
	if (asks)
		own->next += 1;
	int more = !own->seen || is_read(parsed->key.peer_port) || is_read(parsed->key.sandbox_port);
	more |= datagram_says_more(flow, parsed, asks);
	if (parsed->payload && other->unanswered) {
		other->unanswered = 0;
		more = 1;
	}
	return more;
}

/* Takes a frame into the state of its flow; whether it must be handed over. */
INLINE int says_more(struct __sk_buff *skb, struct flow *flow, struct parsed *parsed, int direction,
		     u64 now)
{
	struct direction *own = &flow->directions[direction];
	struct direction *other = &flow->directions[!direction];
	int more = parsed->key.protocol == TCP
			   ? segment(skb, own, other, parsed)
			   : datagram(flow, own, other, parsed, direction);
	if (parsed->payload) {
		u32 stream = own->stream + parsed->fresh;
		if (stream < own->stream)
			stream = START;
		more |= pause_ns && now - own->payload_ns >= pause_ns;
		more |= stream >> PULSE_SHIFT != own->stream >> PULSE_SHIFT;
		own->stream = stream;
		own->payload_ns = now;
		own->unanswered = 1;
	}
	if (direction == FROM_SANDBOX) {
		for (int i = 0; i < 3; i++) {
			more |= flow->macs[i] != parsed->macs[i];
			flow->macs[i] = parsed->macs[i];
		}
	}
	own->seen = 1;
	return more | own->whole;
}

/* A frame, and the interface that it passes. */
struct passing {
	struct __sk_buff *skb;
	struct slot *slot;
	u64 now;
	int direction;
};

/* Looked up where it is needed, which is not for every frame. */
INLINE struct slot *sums_of_all(void)
{
	u32 index = everyone;
	return map_lookup(&slots, &index);
}

INLINE void fill(struct event *event, struct __sk_buff *skb, u32 owner, int direction)
{
	event->at_ns = boot_ns();
	event->born_ns = 0;
	event->slot = skb->cb[0];
	event->segment = skb->gso_size;
	__builtin_memset(&event->key, 0, sizeof(event->key));
	event->key.owner = owner;
	event->length = skb->len;
	event->captured = 0;
	event->tagged = skb->vlan_present ? 1 : 0;
	event->vlan_tci = skb->vlan_tci;
	event->direction = direction;
}

/* Whether a frame that is longer than what is kept begins nothing that is read: as the
 * filter of a packet ring decides it (ring/snap.rs), so that both captures read the same. */
INLINE int begins_nothing(struct __sk_buff *skb)
{
	u16 type, fragment, ports[2];
	u8 words, protocol, offset, first;
	u32 at = 54;
	if (load_bytes(skb, 12, &type, sizeof(type)) < 0)
		return 0;
	if (type == IPV4) {
		if (load_bytes(skb, 20, &fragment, sizeof(fragment)) < 0 || fragment & BE16(0x3fff) ||
		    load_bytes(skb, 23, &protocol, 1) < 0 || load_bytes(skb, 14, &words, 1) < 0)
			return 0;
		at = 14 + (words & 0xf) * 4;
	} else if (type != IPV6 || load_bytes(skb, 20, &protocol, 1) < 0) {
		return 0;
	}
	if (load_bytes(skb, at, ports, sizeof(ports)) < 0 || is_read(ports[0]) || is_read(ports[1]))
		return 0;
	if (protocol == UDP)
		return load_bytes(skb, at + 8, &first, 1) == 0 && first < 0x80;
	if (protocol != TCP || load_bytes(skb, at + 12, &offset, 1) < 0 ||
	    load_bytes(skb, at + (offset >> 4) * 4, &first, 1) < 0)
		return 0;
	if (first >= 'A')
		return first > 'Z';
	return first == 23 || first >= ' ';
}

/* Hands `length` bytes of a frame over, up to `room`, which is a constant; whether there
 * was room in the ring. */
INLINE int hand_over_in(struct passing *passing, struct key *key, struct flow *flow,
			struct direction *before, u32 length, u32 room)
{
	struct __sk_buff *skb = passing->skb;
	struct slot *slot = passing->slot, *all = sums_of_all();
	u64 size = sizeof(struct event) + room;
	/* What was read may be noted down before what was handed over. */
	s64 held = slot->handed - slot->taken;
	if (!all || held + (s64)size > (s64)ring_share)
		return 0;
	if (held >= RING_FLOOR && (s64)(all->handed - all->taken + size) > (s64)ring_common)
		return 0;
	struct event *event = ring_reserve(&frames, sizeof(*event) + room, 0);
	if (!event)
		return 0;
	__sync_fetch_and_add(&slot->handed, size);
	__sync_fetch_and_add(&all->handed, size);
	fill(event, skb, key->owner, passing->direction);
	if (flow) {
		event->born_ns = flow->born_ns;
		event->key = *key;
		event->directions[0] = before[0];
		event->directions[1] = before[1];
	}
	if (length > room)
		length = room;
	/* The verifier forgets what it knew of a number that was moved about. */
	asm volatile("" : "+r"(length));
	if (length >= 1 && length <= room && load_bytes(skb, 0, (void *)(event + 1), length) == 0)
		event->captured = length;
	if (flow)
		__sync_fetch_and_add(&flow->directions[TO_SANDBOX].events, 1);
	u64 flags = NO_WAKEUP;
	if (passing->now - slot->woken_ns >= WAKE_NS) {
		slot->woken_ns = passing->now;
		flags = FORCE_WAKEUP;
	}
	ring_submit(event, flags);
	return 1;
}

INLINE int hand_over(struct passing *passing, struct key *key, struct flow *flow,
		     struct direction *before)
{
	u32 length = passing->skb->len;
	if (length > snap_length)
		length = begins_nothing(passing->skb) ? LONG_HEADERS : snap_length;
	if (length <= 128)
		return hand_over_in(passing, key, flow, before, length, 128);
	if (length <= 1536)
		return hand_over_in(passing, key, flow, before, length, 1536);
	return hand_over_in(passing, key, flow, before, length, 4096);
}

INLINE void lose(struct passing *passing)
{
	struct slot *slot = passing->slot;
	__sync_fetch_and_add(&slot->frames[passing->direction], 1);
	__sync_fetch_and_add(&slot->bytes[passing->direction], bytes_of(passing->skb));
}

/* Whether there is room in the table for one more of an interface. */
INLINE int has_room(struct slot *slot, struct slot *all)
{
	u64 own = slot->created - slot->removed;
	if (own >= flow_share)
		return 0;
	return own < FLOW_FLOOR || (s64)(all->created - all->removed) < (s64)flow_common;
}

INLINE struct flow *flow_of(struct slot *slot, struct key *key)
{
	struct flow *flow = map_lookup(&flows, key);
	if (flow)
		return flow;
	struct slot *all = sums_of_all();
	if (all && has_room(slot, all)) {
		struct flow begun = {.born_ns = boot_ns()};
		if (map_update(&flows, key, &begun, NOEXIST) == 0) {
			__sync_fetch_and_add(&slot->created, 1);
			__sync_fetch_and_add(&all->created, 1);
		}
		flow = map_lookup(&flows, key);
	}
	if (!flow)
		__sync_fetch_and_add(&slot->refused, 1);
	return flow;
}

/* Whether a frame may be counted in a flow that was asked to leave. */
INLINE int stays(struct flow *flow)
{
	return __sync_val_compare_and_swap(&flow->state, ASKED, STAYS) != LEAVES;
}

/* Segments of TCP that an offload makes of a frame, beyond itself. */
INLINE u32 more_segments(struct __sk_buff *skb, struct parsed *parsed)
{
	u32 size = skb->gso_size;
	if (!size || parsed->payload <= size || parsed->key.protocol != TCP)
		return 0;
	return (parsed->payload + size - 1) / size - 1;
}

/* `direction` is a constant: code for one way is faster than code for both. */
INLINE int pass(struct __sk_buff *skb, int direction)
{
	u32 index = skb->cb[0];
	struct slot *slot = map_lookup(&slots, &index);
	if (!slot || !slot->open)
		return NONE;
	struct passing passing = {
		.skb = skb,
		.slot = slot,
		.now = coarse_ns(),
		.direction = direction,
	};
	struct parsed parsed = {.key.owner = skb->cb[1]};
	struct flow *flow = 0;
	if (parse(skb, &parsed, direction))
		flow = flow_of(slot, &parsed.key);
	if (flow && flow->state && !stays(flow))
		flow = 0;
	if (!flow) {
		if (!hand_over(&passing, &parsed.key, 0, 0))
			lose(&passing);
		return NONE;
	}
	struct direction *own = &flow->directions[direction];
	struct direction before[2];
	u32 next = own->next;
	u64 payload_ns = own->payload_ns;
	if (says_more(skb, flow, &parsed, direction, passing.now)) {
		before[0] = flow->directions[0];
		before[1] = flow->directions[1];
		/* As they were before this frame. */
		before[direction].next = next;
		before[direction].payload_ns = payload_ns;
		if (hand_over(&passing, &parsed.key, flow, before))
			return NONE;
		__sync_fetch_and_add(&slot->unread, 1);
	}
	own->last_ns = passing.now;
	__sync_fetch_and_add(&own->bytes, bytes_of(skb));
	__sync_fetch_and_add(&own->payload, parsed.payload);
	__sync_fetch_and_add(&own->frames, 1);
	u32 segments = more_segments(skb, &parsed);
	if (segments)
		__sync_fetch_and_add(&own->segments, segments);
	return NONE;
}

SEC("socket")
int frame(struct __sk_buff *skb)
{
	return skb->pkt_type == PACKET_OUTGOING ? pass(skb, TO_SANDBOX) : pass(skb, FROM_SANDBOX);
}

/* Run by who reads, for flows whose keys stand behind an Ethernet header: its first
 * byte says which state they are to have, the second how many there are. Answers
 * which of them leave, a bit for each. */
SEC("classifier/release")
int release(struct __sk_buff *skb)
{
	u8 order[2] = {0, 0};
	u32 leave = 0;
	if (load_bytes(skb, 0, order, sizeof(order)) < 0)
		return 0;
	for (u32 i = 0; i < RELEASED; i++) {
		struct key key;
		if (i >= order[1] || load_bytes(skb, 14 + i * sizeof(key), &key, sizeof(key)) < 0)
			break;
		struct flow *flow = map_lookup(&flows, &key);
		if (!flow)
			continue;
		if (order[0] == ASKED)
			flow->state = ASKED;
		else if (__sync_val_compare_and_swap(&flow->state, ASKED, LEAVES) == ASKED)
			leave |= 1u << i;
	}
	return leave;
}

char program_license[] SEC("license") = "GPL";
