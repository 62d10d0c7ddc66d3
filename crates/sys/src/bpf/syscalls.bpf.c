// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Counts the system calls of chosen processes and of what they start, and
 * reports rare ones with what their arguments point to.
 *
 * Every process on the host passes through here, so that one that nobody
 * watches is let go after one look at an array. What a watched one needs is
 * found without a search too: a thread by where its registers are kept, which
 * is on its kernel stack and is the same at each call, and a tally by its key;
 * two that fall on one place are told apart in tables. Each watched process
 * has an owner, the sandbox it belongs to: what one owner does is lost at its
 * own expense alone.
 *
 * Built by `cargo xtask bpf` with clang 14 into syscalls.bpf.o, which is
 * committed beside it. The layouts of `struct` and maps here are read by
 * tables.rs, slots.rs, quick.rs and events.rs.
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
#define MAP_RINGBUF 27
#define ANY 0
#define NOEXIST 1
#define MMAPABLE 1024

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static u64 (*ktime_ns)(void) = (void *)5;
static u64 (*jiffies)(void) = (void *)118;
static long (*current_comm)(void *to, u32 size) = (void *)16;
static long (*read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*read_user_str)(void *to, u32 size, const void *from) = (void *)114;
static u64 (*boot_ns)(void) = (void *)125;
static long (*read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*ring_query)(void *ring, u64 what) = (void *)134;
static void *(*task_regs)(void *task) = (void *)175;
static void *(*current_task)(void) = (void *)158;
static void *(*ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*ring_submit)(void *data, u64 flags) = (void *)132;
static void (*ring_discard)(void *data, u64 flags) = (void *)133;

/* What is read of the kernel's own structures; their offsets are found when
 * the program is loaded. */
#define KERNEL __attribute__((preserve_access_index))
struct thread_info {
	u32 status;
} KERNEL;
struct signal_struct {
	struct {
		int counter;
	} live;
	u32 flags;
} KERNEL;
struct mm_struct {
	unsigned long arg_start, arg_end;
} KERNEL;
struct task_struct {
	struct thread_info thread_info;
	void *stack;
	u32 flags;
	s32 pid;
	s32 tgid;
	int exit_code;
	struct task_struct *real_parent;
	struct mm_struct *mm;
	struct signal_struct *signal;
	char comm[16];
} KERNEL;
struct linux_binprm {
	const char *filename;
} KERNEL;
struct pt_regs {
	unsigned long r10, r9, r8, dx, si, di, cx, bx, bp, orig_ax;
} KERNEL;

#define READ(to, pointer, field)                                                                   \
	read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(pointer)->field))

/* Table of numbers. */
#define NATIVE 0
#define I386 1
#define X32 2
#define TS_COMPAT 2
#define X32_BIT 0x40000000ull

#define SIGSYS 31
/* asm-generic/siginfo.h: a filter sent it. */
#define SYS_SECCOMP 1
#define AUDIT_ARCH_I386 0x40000003
#define AUDIT_ARCH_X86_64 0xc000003e
/* linux/sched/signal.h */
#define SIGNAL_GROUP_EXIT 4
#define PF_EXITING 4

struct process {
	u32 owner;
	/* What SIGSYS it got: see below. */
	u32 told;
};

/* One that a filter sent, which was reported; one that anybody else sent. */
#define TOLD_OF_FILTER 1
#define TOLD_OF_OTHERS 2

struct thread {
	/* Where its registers are: 0 for a place that nobody has. */
	u64 regs;
	/* Nanoseconds when the call was entered, and at the last reading of the
	 * clock. */
	u64 entered;
	u64 read;
	/* The kernel's tick when the call was entered. */
	u64 tick;
	/* How often KVM left the guest on this thread. */
	u64 exits;
	u32 pid;
	u32 owner;
	/* Unlike its id never used again; 0 while the rest is written. */
	u32 serial;
	u32 number;
	char name[16];
	u8 abi;
	/* In a call: see below. */
	u8 inside;
	/* Its rare call is still to be reported, when it returns. */
	u8 owes;
	/* For how many calls the time of this one stands; 0 for none. */
	u8 weight;
	u32 tid;
	/* Calls within this tick, and what chance goes on from. */
	u32 burst;
	u32 chance;
	/* Other threads whose place this is, in the table of those. */
	u32 crowded;
	u32 unused;
};

/* In none; in one that was seen to begin; perhaps in one that was not. */
#define OUTSIDE 0
#define COUNTED 1
#define UNSEEN 2

struct key {
	u32 call; /* number, abi in the two highest bits */
	u32 serial;
};

struct tally {
	u64 count;
	u64 errors;
	u64 interrupted;
	u64 time_ns;
	/* Whose it is, where nothing is known of its thread any more. */
	u64 owner;
};

/* A tally in its own place; 0 for none. */
struct quick {
	u64 key;
	struct tally tally;
	u64 unused[2];
};

#define LOST_COUNTS 0
#define LOST_THREADS 1
#define LOST_PROCESSES 2
#define LOST_EVENTS 3
#define LOSSES 4

struct owner {
	u64 lost[LOSSES];
	/* Nanoseconds when its present share of the ring began. */
	u64 since;
	/* Events since then, and how many there may be. */
	u32 events;
	u32 quota;
	/* Its processes, and how many there may be. */
	u32 processes;
	u32 most_processes;
	/* Events of those that have room kept for them. */
	u32 alarms;
	u32 unused;
};

/* How long a share of the ring lasts: the reader looks as often. */
#define SHARE_NS 100000000ull

/* What the arguments of a rare call are: 255 for none. */
struct shape {
	u8 rare;
	u8 path;
	u8 address;
	u8 argv;
	/* Other texts; a call with these has no list. */
	u8 text[2];
	u8 unused[2];
};

/* Kinds of rare calls: those that are made often by programs that do no harm,
 * and those that few do and that room is kept for. */
#define ORDINARY 1
#define ALARM 2

#define TEXT 256
#define ARGV 6
#define ARGUMENT 128
#define ADDRESS 128

#define EVENT_CALL 1
#define EVENT_SIGSYS 2

struct event {
	u64 at_ns;
	u32 kind;
	u32 tid;
	u32 pid;
	u32 number;
	u64 arguments[6];
	char name[16];
	u32 abi;
	/* Bytes with their NUL, or −1 where nothing could be read. */
	s32 path_length;
	s32 address_length;
	s32 argv_length[ARGV];
	u32 owner;
	char path[TEXT];
	char address[ADDRESS];
	char argv[ARGV][ARGUMENT];
};

/* How many watched processes have an id that ends in these bits. */
#define FILTER 16384
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, FILTER);
	UINT(map_flags, MMAPABLE);
	TYPE(key, u32);
	TYPE(value, u64);
} filter SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 4096);
	TYPE(key, u32);
	TYPE(value, struct process);
} processes SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1024);
	TYPE(key, u32);
	TYPE(value, struct owner);
} owners SEC(".maps");

/* Threads that live, each in its place if it came there first. */
#define SLOTS_BITS 14
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1 << SLOTS_BITS);
	UINT(map_flags, MMAPABLE);
	TYPE(key, u32);
	TYPE(value, struct thread);
} slots SEC(".maps");

/* Those that found their place taken, by where their registers are. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 16384);
	TYPE(key, u64);
	TYPE(value, struct thread);
} crowd SEC(".maps");

/* Where the registers of all of them are, by their ids. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 16384);
	TYPE(key, u32);
	TYPE(value, u64);
} threads SEC(".maps");

/* Those that ended since somebody looked, by their serials. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 16384);
	TYPE(key, u32);
	TYPE(value, struct thread);
} ended SEC(".maps");

/* Only the thread itself writes to its tallies: no copy per CPU is needed. */
#define QUICK_BITS 14
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1 << QUICK_BITS);
	UINT(map_flags, MMAPABLE);
	TYPE(key, u32);
	TYPE(value, struct quick);
} quicks SEC(".maps");

/* Those that found their place taken. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 32768);
	TYPE(key, u64);
	TYPE(value, struct tally);
} tallies SEC(".maps");

/* Numbers of each table are below 512; programs with short pointers have some of
 * their own from there on. */
#define NUMBERS 512
#define SHAPES (2 * NUMBERS + 64)
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, SHAPES);
	TYPE(key, u32);
	TYPE(value, struct shape);
} shapes SEC(".maps");

/* The last serial, and how many processes were found that were started
 * before. */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, u64);
} serials SEC(".maps");

struct {
	UINT(type, MAP_RINGBUF);
	UINT(max_entries, 1048576);
} events SEC(".maps");

struct raw {
	u64 args[4];
};

INLINE int may_be_watched(u32 pid)
{
	u32 slot = pid & (FILTER - 1);
	u64 *count = map_lookup(&filter, &slot);
	return count && *count;
}

INLINE void filter_add(u32 pid, s64 many)
{
	u32 slot = pid & (FILTER - 1);
	u64 *count = map_lookup(&filter, &slot);
	if (count)
		__sync_fetch_and_add(count, many);
}

INLINE void lose(u32 whose, u32 what)
{
	struct owner *owner = map_lookup(&owners, &whose);
	if (owner)
		__sync_fetch_and_add(&owner->lost[what & (LOSSES - 1)], 1);
}

INLINE u32 next_serial(void)
{
	u32 zero = 0;
	u64 *last = map_lookup(&serials, &zero);
	return last ? __sync_fetch_and_add(last, 1) + 1 : 0;
}

/* Multiplicative hashing (Knuth): the upper bits of a product. */
INLINE u32 place(u32 value, u32 bits)
{
	return (value * 2654435761u) >> (32 - bits);
}

/* Where a thread's registers are, as a number: the verifier does not let one
 * calculate with the pointer. */
INLINE u64 regs_of(struct task_struct *task)
{
	void *pointer = task_regs(task);
	u64 regs = 0;
	read_kernel(&regs, sizeof(regs), &pointer);
	return regs;
}

INLINE struct thread *slot_of(u64 regs)
{
	/* Kernel stacks are 16 KiB or more apart. */
	u32 at = place(regs >> 14, SLOTS_BITS);
	return map_lookup(&slots, &at);
}

/* The thread whose registers are there, if it is counted. */
INLINE struct thread *find(u64 regs)
{
	struct thread *slot = slot_of(regs);
	if (!slot || slot->regs == regs)
		return slot;
	return slot->crowded ? map_lookup(&crowd, &regs) : 0;
}

INLINE struct thread *find_by_id(u32 tid)
{
	u64 *regs = map_lookup(&threads, &tid);
	return regs ? find(*regs) : 0;
}

/* Whether a thread may be noted down. It does so itself at its first call, if
 * it was not before by its parent or by whoever began to watch it: who is
 * doing it this very moment is not disturbed. */
INLINE int claim(u32 tid, u64 regs, int itself)
{
	if (!map_update(&threads, &tid, &regs, NOEXIST))
		return 1;
	u64 *noted = map_lookup(&threads, &tid);
	if (!itself || (noted && *noted == regs))
		return 0;
	return !map_update(&threads, &tid, &regs, ANY);
}

struct beginner {
	u32 tid;
	u32 pid;
	u32 owner;
	u8 inside;
	/* Whether it is the thread itself. */
	u8 itself;
	u64 regs;
	const void *name;
};

INLINE struct thread *begin(const struct beginner *it)
{
	u64 regs = it->regs;
	struct thread *slot = slot_of(regs);
	if (!slot)
		return 0;
	struct thread thread = {
		.regs = regs, .pid = it->pid, .owner = it->owner, .tid = it->tid, .inside = it->inside};
	if (!claim(it->tid, regs, it->itself))
		return 0;
	thread.serial = next_serial();
	read_kernel(thread.name, sizeof(thread.name) - 1, it->name);
	u64 former = __sync_val_compare_and_swap(&slot->regs, 0, regs);
	if (!former || former == regs) {
		slot->serial = 0;
		slot->exits = 0;
		slot->pid = it->pid;
		slot->owner = it->owner;
		slot->tid = it->tid;
		slot->inside = it->inside;
		slot->tick = 0;
		__builtin_memcpy(slot->name, thread.name, sizeof(thread.name));
		/* Whoever sees it sees all of the above. */
		asm volatile("" ::: "memory");
		slot->serial = thread.serial;
		return slot;
	}
	if (map_update(&crowd, &regs, &thread, ANY)) {
		map_delete(&threads, &thread.tid);
		return 0;
	}
	__sync_fetch_and_add(&slot->crowded, 1);
	return map_lookup(&crowd, &regs);
}

INLINE void end(u32 tid)
{
	u64 *found = map_lookup(&threads, &tid);
	if (!found)
		return;
	u64 regs = *found;
	struct thread *slot = slot_of(regs);
	struct thread *thread = find(regs);
	if (slot && thread) {
		struct thread gone = *thread;
		if (map_update(&ended, &gone.serial, &gone, ANY))
			lose(gone.owner, LOST_THREADS);
		if (slot->regs == regs) {
			slot->serial = 0;
			asm volatile("" ::: "memory");
			slot->regs = 0;
		} else if (!map_delete(&crowd, &regs)) {
			__sync_fetch_and_add(&slot->crowded, -1);
		}
	}
	map_delete(&threads, &tid);
}

INLINE void read_arguments(struct event *event, struct pt_regs *regs)
{
	unsigned long value[6] = {};
	if (event->abi == I386) {
		READ(value[0], regs, bx);
		READ(value[1], regs, cx);
		READ(value[2], regs, dx);
		READ(value[3], regs, si);
		READ(value[4], regs, di);
		READ(value[5], regs, bp);
		for (int i = 0; i < 6; i++)
			value[i] = (u32)value[i];
	} else {
		READ(value[0], regs, di);
		READ(value[1], regs, si);
		READ(value[2], regs, dx);
		READ(value[3], regs, r10);
		READ(value[4], regs, r8);
		READ(value[5], regs, r9);
	}
#pragma unroll
	for (int i = 0; i < 6; i++)
		event->arguments[i] = value[i];
}

INLINE u64 argument(const struct event *event, u8 at)
{
	u64 value = 0;
#pragma unroll
	for (int i = 0; i < 6; i++)
		if (i == at)
			value = event->arguments[i];
	return value;
}

/* Fills in what the arguments point to; whether all of it could be read. */
INLINE int follow(struct event *event, const struct shape *shape)
{
	int complete = 1;
	event->path_length = 0;
	event->address_length = 0;
	if (shape->path < 6) {
		event->path_length =
			read_user_str(event->path, TEXT, (void *)argument(event, shape->path));
		if (event->path_length < 0)
			complete = 0;
	}
	if (shape->address < 5) {
		u64 length = argument(event, shape->address + 1);
		/* Keeps the compiler from comparing one copy and using another. */
		asm volatile("" : "+r"(length));
		if (length > ADDRESS)
			length = ADDRESS;
		event->address_length = length;
		if (read_user(event->address, length, (void *)argument(event, shape->address)) < 0) {
			event->address_length = -1;
			complete = 0;
		}
	}
#pragma unroll
	for (int i = 0; i < ARGV; i++)
		event->argv_length[i] = 0;
	if (shape->argv < 6 && event->abi == NATIVE) {
		const u64 *list = (const u64 *)argument(event, shape->argv);
#pragma unroll
		for (int i = 0; i < ARGV; i++) {
			u64 pointer = 0;
			if (read_user(&pointer, sizeof(pointer), list + i) < 0) {
				complete = 0;
				break;
			}
			if (!pointer)
				break;
			event->argv_length[i] =
				read_user_str(event->argv[i], ARGUMENT, (void *)pointer);
			if (event->argv_length[i] < 0)
				complete = 0;
		}
	}
#pragma unroll
	for (int i = 0; i < 2; i++) {
		u64 from = shape->text[i] < 6 ? argument(event, shape->text[i]) : 0;
		if (!from)
			continue;
		event->argv_length[i] = read_user_str(event->argv[i], ARGUMENT, (void *)from);
		if (event->argv_length[i] < 0)
			complete = 0;
	}
	return complete;
}

/* Of an owner's share, and of the ring, a part is kept for alarms: who fills
 * both by opening files hides nothing else. */
INLINE int has_room(struct owner *owner, int alarm)
{
	u32 kept = owner->quota / 4;
	if (alarm) {
		u32 before = __sync_fetch_and_add(&owner->alarms, 1);
		return before < kept || before + owner->events < owner->quota;
	}
	if (__sync_fetch_and_add(&owner->events, 1) >= owner->quota - kept)
		return 0;
	u64 size = ring_query(&events, 1);
	return ring_query(&events, 0) < size - size / 4;
}

/* Room for one event, if its owner has not used up its share of the ring. */
INLINE struct event *reserve(u32 kind, u32 tid, const struct thread *thread, int alarm)
{
	u32 whose = thread->owner;
	struct owner *owner = map_lookup(&owners, &whose);
	if (!owner)
		return 0;
	u64 now = boot_ns();
	if (now - owner->since >= SHARE_NS) {
		owner->since = now;
		owner->events = 0;
		owner->alarms = 0;
	}
	struct event *event = 0;
	if (has_room(owner, alarm))
		event = ring_reserve(&events, sizeof(struct event), 0);
	if (!event) {
		__sync_fetch_and_add(&owner->lost[LOST_EVENTS], 1);
		return 0;
	}
	event->at_ns = now;
	event->kind = kind;
	event->tid = tid;
	event->pid = thread->pid;
	event->number = thread->number;
	event->abi = thread->abi;
	event->owner = whose;
	event->path_length = 0;
	event->address_length = 0;
#pragma unroll
	for (int i = 0; i < ARGV; i++)
		event->argv_length[i] = 0;
	current_comm(event->name, sizeof(event->name));
	return event;
}

INLINE struct shape *rare(const struct thread *thread)
{
	u32 index = thread->number;
	if (index >= NUMBERS && thread->abi != X32)
		return 0;
	if (index >= NUMBERS || thread->abi == I386)
		index += NUMBERS;
	struct shape *shape = map_lookup(&shapes, &index);
	return shape && shape->rare ? shape : 0;
}

/* A page that a pointer leads to may not be there yet: the kernel brings it
 * in on behalf of the call, so that it can be read when the call returns. */
INLINE void report(struct thread *thread, const struct shape *shape, struct pt_regs *regs,
		   int last_chance)
{
	struct event *event = reserve(EVENT_CALL, thread->tid, thread, shape->rare == ALARM);
	if (!event)
		return;
	read_arguments(event, regs);
	int complete = follow(event, shape);
	if (!complete && !last_chance) {
		thread->owes = 1;
		ring_discard(event, 0);
		return;
	}
	ring_submit(event, 0);
}

INLINE void note_call(struct thread *thread, struct task_struct *task, u64 number)
{
	u8 abi = NATIVE;
	if (task->thread_info.status & TS_COMPAT) {
		abi = I386;
	} else if ((number & X32_BIT) && !(number >> 31)) {
		abi = X32;
		number &= ~X32_BIT;
	}
	thread->number = number;
	thread->abi = abi;
	thread->owes = 0;
}

/* Whether a call never returns, so that it would not have been counted. */
INLINE int ends_thread(const struct thread *thread)
{
	if (thread->abi == I386)
		return thread->number == 1 || thread->number == 252;
	return thread->number == 60 || thread->number == 231;
}

/* A call of a thread that no room was left for: lost to the counts, but
 * reported. One that is being noted down by somebody else this moment is in a
 * call that began before it was watched. */
INLINE void uncounted(struct raw *context, struct task_struct *task, u32 owner)
{
	struct thread thread = {.pid = task->tgid, .owner = owner, .tid = task->pid};
	note_call(&thread, task, context->args[1]);
	if (!ends_thread(&thread) && !map_lookup(&threads, &thread.tid))
		lose(owner, LOST_COUNTS);
	struct shape *shape = rare(&thread);
	if (shape)
		report(&thread, shape, (struct pt_regs *)context->args[0], 1);
}

/* Reading the clock is the dearest part of a short call. On a thread that
 * makes many within a tick of the kernel's (1 to 10 ms) the time of one in
 * eight, chosen by chance, stands for eight. One during which the tick changes
 * is never left out: see time_of. */
#define EACH_TIMED 16
#define OTHERS_TIMED 8

INLINE void note_time(struct thread *thread)
{
	u64 tick = jiffies();
	if (thread->tick != tick) {
		thread->tick = tick;
		thread->burst = 0;
	}
	thread->weight = 1;
	if (thread->burst >= EACH_TIMED) {
		thread->chance = thread->chance * 1664525 + 1013904223;
		thread->weight = thread->chance >> 29 ? 0 : OTHERS_TIMED;
		if (!thread->weight)
			return;
	} else {
		thread->burst += 1;
	}
	thread->entered = thread->read = ktime_ns();
}

/* Nanoseconds that a call which returns now adds to its tally. */
INLINE u64 time_of(struct thread *thread)
{
	int same_tick = jiffies() == thread->tick;
	if (!thread->weight && same_tick)
		return 0;
	u64 now = ktime_ns();
	/* Entered within the tick of the last reading, and after it. */
	u64 time = now - (thread->weight ? thread->entered : thread->read);
	thread->read = now;
	return same_tick ? time * thread->weight : time;
}

SEC("raw_tp/sys_enter")
int on_enter(struct raw *context)
{
	struct task_struct *task = current_task();
	u32 pid = task->tgid;
	if (!may_be_watched(pid))
		return 0;
	u32 tid = task->pid;
	struct thread *thread = find(context->args[0]);
	if (!thread || thread->tid != tid) {
		struct process *process = map_lookup(&processes, &pid);
		if (!process)
			return 0;
		struct beginner it = {.tid = tid, .pid = pid, .owner = process->owner,
				      .itself = 1, .regs = context->args[0],
				      .name = task->comm};
		thread = begin(&it);
		if (!thread) {
			uncounted(context, task, process->owner);
			return 0;
		}
	}
	note_call(thread, task, context->args[1]);
	thread->inside = COUNTED;
	struct shape *shape = rare(thread);
	if (shape)
		report(thread, shape, (struct pt_regs *)context->args[0], 0);
	note_time(thread);
	return 0;
}

/* The thread's own, found or made; none where there is no room. */
INLINE struct tally *tally_of(const struct thread *thread)
{
	struct key parts = {.serial = thread->serial,
			    .call = (thread->number & 0x3fffffff) | ((u32)thread->abi << 30)};
	u64 key = (u64)parts.serial << 32 | parts.call;
	u32 at = place((parts.serial << 9) + parts.call, QUICK_BITS);
	struct quick *quick = map_lookup(&quicks, &at);
	if (quick && quick->key == key)
		return &quick->tally;
	struct tally *tally = map_lookup(&tallies, &key);
	if (tally)
		return tally;
	if (quick && !quick->key && !__sync_val_compare_and_swap(&quick->key, 0, key)) {
		quick->tally.owner = thread->owner;
		return &quick->tally;
	}
	struct tally none = {.owner = thread->owner};
	map_update(&tallies, &key, &none, NOEXIST);
	return map_lookup(&tallies, &key);
}

/* Whether what a thread returns from is a call that was refused before it
 * began: a seccomp filter answers with an error, asks a tracer or another
 * process, or sends a signal, before anybody is told of the call. */
INLINE int refused(struct thread *thread, struct raw *context)
{
	u8 former = thread->inside;
	thread->inside = OUTSIDE;
	struct task_struct *task = current_task();
	if (former == UNSEEN || thread->tid != (u32)task->pid)
		return 0;
	struct pt_regs *regs = (struct pt_regs *)context->args[0];
	unsigned long number = 0;
	READ(number, regs, orig_ax);
	/* No call at all: one that a tracer skipped. */
	if ((s32)number < 0)
		return 0;
	note_call(thread, task, (u32)number);
	struct shape *shape = rare(thread);
	if (shape)
		report(thread, shape, regs, 1);
	return 1;
}

SEC("raw_tp/sys_exit")
int on_exit(struct raw *context)
{
	struct thread *thread = find(context->args[0]);
	if (!thread)
		return 0;
	u64 time = 0;
	if (thread->inside == COUNTED)
		time = time_of(thread);
	else if (!refused(thread, context))
		return 0;
	thread->inside = OUTSIDE;
	s64 value = context->args[1];
	if (thread->owes) {
		thread->owes = 0;
		struct shape *shape = rare(thread);
		if (shape)
			report(thread, shape, (struct pt_regs *)context->args[0], 1);
	}
	struct tally *tally = tally_of(thread);
	if (!tally) {
		lose(thread->owner, LOST_COUNTS);
		return 0;
	}
	tally->count += 1;
	tally->time_ns += time;
	if (value < 0 && value >= -4095) {
		tally->errors += 1;
		if (value == -512 || value == -513 || value == -514 || value == -516)
			tally->interrupted += 1;
	}
	return 0;
}

/* A process of the same owner, unless that one has too many. It may be followed
 * already: whoever looks at all threads of the host sees a new one before its
 * parent tells of it. */
#define NOT_FOLLOWED 0
#define FOLLOWED 1
#define WAS_FOLLOWED 2
INLINE int follow_process(u32 pid, u32 whose)
{
	struct process process = {.owner = whose};
	struct owner *owner = map_lookup(&owners, &whose);
	if (!owner)
		return 0;
	/* In this order: what it starts meanwhile is followed too. */
	filter_add(pid, 1);
	if (__sync_fetch_and_add(&owner->processes, 1) < owner->most_processes &&
	    !map_update(&processes, &pid, &process, NOEXIST))
		return FOLLOWED;
	filter_add(pid, -1);
	__sync_fetch_and_add(&owner->processes, -1);
	if (map_lookup(&processes, &pid))
		return WAS_FOLLOWED;
	__sync_fetch_and_add(&owner->lost[LOST_PROCESSES], 1);
	return NOT_FOLLOWED;
}

/* A process ended. */
INLINE void leave_process(u32 pid, u32 whose)
{
	if (map_delete(&processes, &pid))
		return;
	filter_add(pid, -1);
	struct owner *owner = map_lookup(&owners, &whose);
	if (owner)
		__sync_fetch_and_add(&owner->processes, -1);
}

/* A new thread, by its parent: what its first call is refused is told too. */
INLINE void note_child(struct task_struct *task, struct task_struct *child, u32 pid, u32 owner)
{
	struct beginner it = {.pid = pid, .owner = owner, .inside = UNSEEN};
	/* Registers are at the same place of each stack. */
	u64 stack = 0, own = regs_of(task);
	READ(stack, child, stack);
	READ(it.tid, child, pid);
	it.regs = stack + (own - (u64)task->stack);
	it.name = __builtin_preserve_access_index(&child->comm);
	if (stack && own && !begin(&it) && !map_lookup(&threads, &it.tid))
		lose(owner, LOST_THREADS);
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct raw *context)
{
	struct task_struct *task = current_task();
	u32 own = task->tgid;
	if (!may_be_watched(own))
		return 0;
	struct process *process = map_lookup(&processes, &own);
	if (!process)
		return 0;
	struct task_struct *child = (struct task_struct *)context->args[1];
	u32 pid = 0, owner = process->owner;
	READ(pid, child, tgid);
	if (pid != own && !follow_process(pid, owner))
		return 0;
	note_child(task, child, pid, owner);
	return 0;
}

/* What a program was given that has just taken the place of another, whose
 * memory, with the arguments of the call, is gone. */
INLINE void report_exec(struct thread *thread, struct task_struct *task,
			struct linux_binprm *program)
{
	thread->owes = 0;
	struct shape *shape = rare(thread);
	if (!shape)
		return;
	struct event *event = reserve(EVENT_CALL, task->pid, thread, 1);
	if (!event)
		return;
#pragma unroll
	for (int i = 0; i < 6; i++)
		event->arguments[i] = 0;
	const char *path = 0;
	READ(path, program, filename);
	event->path_length = read_kernel_str(event->path, TEXT, path);
	struct mm_struct *mm = task->mm;
	u64 from = mm ? mm->arg_start : 0, end = mm ? mm->arg_end : 0;
#pragma unroll
	for (int i = 0; i < ARGV; i++) {
		if (from < end) {
			s64 length = read_user_str(event->argv[i], ARGUMENT, (void *)from);
			event->argv_length[i] = length;
			/* Where one that was cut ends is not known. */
			from = length <= 0 || length >= ARGUMENT ? end : from + length;
		}
	}
	ring_submit(event, 0);
}

/* Only the thread that called is left, and it has the first one's id. */
SEC("raw_tp/sched_process_exec")
int on_exec(struct raw *context)
{
	struct task_struct *task = current_task();
	u32 former = context->args[1];
	u32 tid = task->pid;
	if (!may_be_watched(task->tgid))
		return 0;
	u64 *found = map_lookup(&threads, &former);
	if (!found)
		return 0;
	u64 regs = *found;
	struct thread *caller = find(regs);
	if (caller) {
		caller->tid = tid;
		if (caller->owes)
			report_exec(caller, task, (struct linux_binprm *)context->args[2]);
	}
	if (former == tid)
		return 0;
	map_update(&threads, &tid, &regs, ANY);
	map_delete(&threads, &former);
	return 0;
}

/* A thread gets its name after its start. */
SEC("raw_tp/task_rename")
int on_rename(struct raw *context)
{
	struct task_struct *task = (struct task_struct *)context->args[0];
	u32 pid = 0, tid = 0;
	READ(pid, task, tgid);
	if (!may_be_watched(pid))
		return 0;
	READ(tid, task, pid);
	struct thread *thread = find_by_id(tid);
	if (thread)
		read_kernel(thread->name, sizeof(thread->name) - 1, (void *)context->args[1]);
	return 0;
}

INLINE void report_sigsys(u32 tid, u32 pid, struct process *process, u32 number, u32 arch)
{
	struct thread unknown = {.pid = pid, .owner = process->owner, .number = number};
	process->told |= TOLD_OF_FILTER;
	struct event *event = reserve(EVENT_SIGSYS, tid, &unknown, 1);
	if (!event)
		return;
	event->arguments[0] = arch;
	ring_submit(event, 0);
}

/* A filter killed this thread alone, which gets no signal: the call that it
 * met is where the thread left it. */
INLINE void report_killed(struct task_struct *task, struct process *process)
{
	struct pt_regs *regs = task_regs(task);
	unsigned long number = 0xffffffff;
	if (regs)
		READ(number, regs, orig_ax);
	u32 arch = task->thread_info.status & TS_COMPAT ? AUDIT_ARCH_I386 : AUDIT_ARCH_X86_64;
	report_sigsys(task->pid, task->tgid, process, number, arch);
}

SEC("raw_tp/sched_process_exit")
int on_end(struct raw *context)
{
	(void)context;
	struct task_struct *task = current_task();
	u32 pid = task->tgid;
	u32 tid = task->pid;
	struct process *process = may_be_watched(pid) ? map_lookup(&processes, &pid) : 0;
	if (!process) {
		/* Of threads that end side by side any may be the one that sees that
		 * all have, and takes the process out before others get here. */
		end(tid);
		return 0;
	}
	struct signal_struct *signal = task->signal;
	int killed = (task->exit_code & 127) == SIGSYS;
	int last = signal && signal->live.counter <= 0;
	if (killed && signal && !(signal->flags & SIGNAL_GROUP_EXIT))
		report_killed(task, process);
	else if (killed && last && !process->told)
		/* By kernels that send no signal where a filter kills the process. */
		report_sigsys(tid, pid, process, 0xffffffff, 0);
	u32 whose = process->owner;
	end(tid);
	if (last || !signal)
		leave_process(pid, whose);
	return 0;
}

SEC("raw_tp/signal_deliver")
int on_signal(struct raw *context)
{
	if ((int)context->args[0] != SIGSYS)
		return 0;
	struct task_struct *task = current_task();
	u32 pid = task->tgid;
	if (!may_be_watched(pid))
		return 0;
	struct process *process = map_lookup(&processes, &pid);
	if (!process)
		return 0;
	/* si_code, and of a filter si_syscall and si_arch, of siginfo_t
	 * (asm-generic/siginfo.h). */
	s32 code = 0;
	u32 call[2] = {};
	read_kernel(&code, sizeof(code), (char *)context->args[1] + 8);
	if (code != SYS_SECCOMP) {
		process->told |= TOLD_OF_OTHERS;
		return 0;
	}
	read_kernel(call, sizeof(call), (char *)context->args[1] + 24);
	report_sigsys(task->pid, pid, process, call[0], call[1]);
	return 0;
}

/* The guest stopped running on this thread: the one sign of its activity that
 * costs the host nothing to see. */
SEC("raw_tp/kvm_exit")
int on_kvm_exit(struct raw *context)
{
	(void)context;
	struct task_struct *task = current_task();
	u32 pid = task->tgid;
	if (!may_be_watched(pid))
		return 0;
	struct thread *thread = find_by_id(task->pid);
	if (!thread) {
		/* It is in the call that runs the guest since before it was watched. */
		struct process *process = map_lookup(&processes, &pid);
		if (!process)
			return 0;
		struct beginner it = {.tid = task->pid, .pid = pid, .owner = process->owner,
				      .inside = UNSEEN, .regs = regs_of(task),
				      .name = task->comm};
		thread = begin(&it);
	}
	if (thread)
		thread->exits += 1;
	return 0;
}

/* Context of a program that is run for each thread of the host. */
struct each {
	void *meta;
	struct task_struct *task;
};

/* A process that a watched one had started before it was watched. */
INLINE struct process *adopt_process(struct task_struct *task, u32 pid)
{
	struct task_struct *parent = task->real_parent;
	u32 one = 1, above = parent ? parent->tgid : 0;
	struct signal_struct *signal = task->signal;
	if (!signal || signal->live.counter <= 0 || !may_be_watched(above))
		return 0;
	struct process *process = map_lookup(&processes, &above);
	if (!process)
		return 0;
	u32 whose = process->owner;
	if (follow_process(pid, whose) != FOLLOWED)
		return map_lookup(&processes, &pid);
	/* Its end may have been before it was noted down, but not after this. */
	if (signal->live.counter <= 0) {
		leave_process(pid, whose);
		return 0;
	}
	u64 *adopted = map_lookup(&serials, &one);
	if (adopted)
		__sync_fetch_and_add(adopted, 1);
	return map_lookup(&processes, &pid);
}

/* Notes down threads that have made no call since they are watched: one may
 * sleep in a call, or run a guest, and the next that it makes be refused. */
SEC("iter/task")
int adopt(struct each *context)
{
	struct task_struct *task = context->task;
	if (!task)
		return 0;
	u32 pid = task->tgid, tid = task->pid;
	struct process *process = may_be_watched(pid) ? map_lookup(&processes, &pid) : 0;
	if (!process)
		process = adopt_process(task, pid);
	if (!process || task->flags & PF_EXITING || map_lookup(&threads, &tid))
		return 0;
	struct beginner it = {.tid = tid, .pid = pid, .owner = process->owner, .inside = UNSEEN,
			      .regs = regs_of(task), .name = task->comm};
	if (it.regs && begin(&it) && task->flags & PF_EXITING)
		end(tid);
	return 0;
}

/* What the kernel takes for any program at all on both tracepoints: attached
 * by benchmarks alone, in place of all others. */
SEC("raw_tp/sys_enter")
int nothing_on_enter(struct raw *context)
{
	(void)context;
	return 0;
}

SEC("raw_tp/sys_exit")
int nothing_on_exit(struct raw *context)
{
	(void)context;
	return 0;
}

char program_license[] SEC("license") = "GPL";
