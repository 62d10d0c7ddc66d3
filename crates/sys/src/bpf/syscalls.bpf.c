// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * Counts the system calls of chosen processes and of what they start, and
 * reports rare ones with what their arguments point to.
 *
 * Built by `cargo xtask bpf` with clang 14 into syscalls.bpf.o, which is
 * committed beside it. The layouts of `struct` and maps here are read by
 * tables.rs and events.rs.
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
#define MAP_PERCPU_HASH 5
#define MAP_PERCPU_ARRAY 6
#define MAP_RINGBUF 27
#define ANY 0
#define NOEXIST 1

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static u64 (*ktime_ns)(void) = (void *)5;
static u64 (*current_pid_tgid)(void) = (void *)14;
static long (*current_comm)(void *to, u32 size) = (void *)16;
static u64 (*current_task)(void) = (void *)35;
static long (*read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*read_user_str)(void *to, u32 size, const void *from) = (void *)114;
static u64 (*boot_ns)(void) = (void *)125;
static void *(*ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*ring_submit)(void *data, u64 flags) = (void *)132;
static void (*ring_discard)(void *data, u64 flags) = (void *)133;

/* What is read of the kernel's own structures; their offsets are found when
 * the program is loaded. */
#define KERNEL __attribute__((preserve_access_index))
struct thread_info {
	u32 status;
} KERNEL;
struct atomic {
	int counter;
} KERNEL;
struct signal_struct {
	struct {
		int counter;
	} live;
} KERNEL;
struct task_struct {
	struct thread_info thread_info;
	s32 pid;
	s32 tgid;
	struct signal_struct *signal;
} KERNEL;
struct pt_regs {
	unsigned long r10, r9, r8, dx, si, di, cx, bx, bp;
} KERNEL;

#define READ(to, pointer, field)                                                                   \
	read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(pointer)->field))

/* Thread or table of numbers. */
#define NATIVE 0
#define I386 1
#define X32 2
#define TS_COMPAT 2
#define X32_BIT 0x40000000ull

struct thread {
	u32 pid;
	u32 number;
	/* Nanoseconds when the call was entered. */
	u64 entered;
	u8 abi;
	/* In a call. */
	u8 inside;
	/* Its rare call is still to be reported, when it returns. */
	u8 owes;
	u8 ended;
	char name[16];
};

struct key {
	u32 tid;
	u32 call; /* number, abi in the two highest bits */
};

struct tally {
	u64 count;
	u64 errors;
	u64 interrupted;
	u64 time_ns;
};

/* What the arguments of a rare call are: 255 for none. */
struct shape {
	u8 rare;
	u8 path;
	u8 address;
	u8 argv;
};

#define TEXT 256
#define ARGV 6
#define ARGUMENT 128
#define ADDRESS 128

#define EVENT_CALL 1
#define EVENT_SIGSYS 2
#define EVENT_ENDS 3

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
	u32 pad;
	char path[TEXT];
	char address[ADDRESS];
	char argv[ARGV][ARGUMENT];
};

#define LOST_COUNTS 0
#define LOST_THREADS 1
#define LOST_PROCESSES 2
#define LOST_EVENTS 3
#define LOSSES 4

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 4096);
	TYPE(key, u32);
	TYPE(value, u32);
} processes SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 16384);
	TYPE(key, u32);
	TYPE(value, struct thread);
} threads SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_HASH);
	UINT(max_entries, 32768);
	TYPE(key, struct key);
	TYPE(value, struct tally);
} tallies SEC(".maps");

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1024);
	TYPE(key, u32);
	TYPE(value, struct shape);
} shapes SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, LOSSES);
	TYPE(key, u32);
	TYPE(value, u64);
} losses SEC(".maps");

struct {
	UINT(type, MAP_RINGBUF);
	UINT(max_entries, 1048576);
} events SEC(".maps");

struct raw {
	u64 args[4];
};

INLINE void lose(u32 what)
{
	u64 *count = map_lookup(&losses, &what);
	if (count)
		*count += 1;
}

INLINE struct thread *begin(u32 tid, u32 pid)
{
	struct thread thread = {.pid = pid};
	current_comm(thread.name, sizeof(thread.name));
	map_update(&threads, &tid, &thread, NOEXIST);
	struct thread *made = map_lookup(&threads, &tid);
	if (!made)
		lose(LOST_THREADS);
	return made;
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
	return complete;
}

INLINE struct event *reserve(u32 kind, u32 tid, const struct thread *thread)
{
	struct event *event = ring_reserve(&events, sizeof(struct event), 0);
	if (!event) {
		lose(LOST_EVENTS);
		return 0;
	}
	event->at_ns = boot_ns();
	event->kind = kind;
	event->tid = tid;
	event->pid = thread->pid;
	event->number = thread->number;
	event->abi = thread->abi;
	event->pad = 0;
	event->path_length = 0;
	event->address_length = 0;
#pragma unroll
	for (int i = 0; i < ARGV; i++)
		event->argv_length[i] = 0;
	current_comm(event->name, sizeof(event->name));
	return event;
}

/* A page that a pointer leads to may not be there yet: the kernel brings it
 * in on behalf of the call, so that it can be read when the call returns. */
INLINE void report(u32 tid, struct thread *thread, struct pt_regs *regs, int last_chance)
{
	u32 index = thread->number & 511;
	if (thread->abi == I386)
		index += 512;
	if (thread->number > 511)
		return;
	struct shape *shape = map_lookup(&shapes, &index);
	if (!shape || !shape->rare)
		return;
	struct event *event = reserve(EVENT_CALL, tid, thread);
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

SEC("raw_tp/sys_enter")
int on_enter(struct raw *context)
{
	u64 ids = current_pid_tgid();
	u32 pid = ids >> 32;
	u32 tid = ids;
	if (!map_lookup(&processes, &pid))
		return 0;
	struct thread *thread = map_lookup(&threads, &tid);
	if (!thread) {
		thread = begin(tid, pid);
		if (!thread)
			return 0;
	}
	u64 number = context->args[1];
	struct task_struct *task = (struct task_struct *)current_task();
	u32 status = 0;
	READ(status, task, thread_info.status);
	u8 abi = NATIVE;
	if (status & TS_COMPAT) {
		abi = I386;
	} else if ((number & X32_BIT) && !(number >> 31)) {
		abi = X32;
		number &= ~X32_BIT;
	}
	thread->number = number;
	thread->abi = abi;
	thread->inside = 1;
	thread->owes = 0;
	u32 index = (thread->number & 511) + (abi == I386 ? 512 : 0);
	struct shape *shape = map_lookup(&shapes, &index);
	if (shape && shape->rare && thread->number < 512)
		report(tid, thread, (struct pt_regs *)context->args[0], 0);
	thread->entered = ktime_ns();
	return 0;
}

SEC("raw_tp/sys_exit")
int on_exit(struct raw *context)
{
	u32 tid = current_pid_tgid();
	struct thread *thread = map_lookup(&threads, &tid);
	/* In no call: attached within one, or just made. */
	if (!thread || !thread->inside)
		return 0;
	u64 time = ktime_ns() - thread->entered;
	thread->inside = 0;
	s64 value = context->args[1];
	if (thread->owes) {
		thread->owes = 0;
		report(tid, thread, (struct pt_regs *)context->args[0], 1);
	}
	struct key key = {.tid = tid, .call = (thread->number & 0x3fffffff) | ((u32)thread->abi << 30)};
	struct tally *tally = map_lookup(&tallies, &key);
	if (!tally) {
		struct tally none = {};
		map_update(&tallies, &key, &none, NOEXIST);
		tally = map_lookup(&tallies, &key);
		if (!tally) {
			lose(LOST_COUNTS);
			return 0;
		}
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

SEC("raw_tp/sched_process_fork")
int on_fork(struct raw *context)
{
	struct task_struct *child = (struct task_struct *)context->args[1];
	u32 own = current_pid_tgid() >> 32;
	if (!map_lookup(&processes, &own))
		return 0;
	u32 pid = 0, tid = 0;
	READ(pid, child, tgid);
	READ(tid, child, pid);
	if (pid != own) {
		u32 parent = own;
		if (map_update(&processes, &pid, &parent, ANY))
			lose(LOST_PROCESSES);
	}
	/* A thread of this id that ended before is not this one. */
	struct thread thread = {.pid = pid};
	current_comm(thread.name, sizeof(thread.name));
	if (map_update(&threads, &tid, &thread, ANY))
		lose(LOST_THREADS);
	return 0;
}

/* Only the thread that called is left, and it has the first one's id. */
SEC("raw_tp/sched_process_exec")
int on_exec(struct raw *context)
{
	u32 former = context->args[1];
	u64 ids = current_pid_tgid();
	u32 pid = ids >> 32;
	u32 tid = ids;
	if (!map_lookup(&processes, &pid))
		return 0;
	struct thread *own = map_lookup(&threads, &tid);
	if (former != tid) {
		struct thread *caller = map_lookup(&threads, &former);
		if (caller) {
			struct thread moved = *caller;
			moved.ended = 0;
			map_update(&threads, &tid, &moved, ANY);
			caller->ended = 1;
		}
		own = map_lookup(&threads, &tid);
	}
	if (own)
		current_comm(own->name, sizeof(own->name));
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_end(struct raw *context)
{
	(void)context;
	u64 ids = current_pid_tgid();
	u32 pid = ids >> 32;
	u32 tid = ids;
	if (!map_lookup(&processes, &pid))
		return 0;
	struct thread *thread = map_lookup(&threads, &tid);
	if (thread) {
		current_comm(thread->name, sizeof(thread->name));
		thread->inside = 0;
		thread->ended = 1;
	}
	struct task_struct *task = (struct task_struct *)current_task();
	struct signal_struct *signal = 0;
	int live = 1;
	READ(signal, task, signal);
	READ(live, signal, live.counter);
	if (live <= 0)
		map_delete(&processes, &pid);
	return 0;
}

SEC("raw_tp/signal_deliver")
int on_signal(struct raw *context)
{
	if ((int)context->args[0] != 31 /* SIGSYS */)
		return 0;
	u64 ids = current_pid_tgid();
	u32 pid = ids >> 32;
	u32 tid = ids;
	if (!map_lookup(&processes, &pid))
		return 0;
	struct thread unknown = {.pid = pid};
	struct event *event = reserve(EVENT_SIGSYS, tid, &unknown);
	if (!event)
		return 0;
	/* si_syscall and si_arch of siginfo_t (asm-generic/siginfo.h). */
	u32 call[2] = {};
	read_kernel(call, sizeof(call), (char *)context->args[1] + 24);
	event->number = call[0];
	event->arguments[0] = call[1];
	ring_submit(event, 0);
	return 0;
}

char program_license[] SEC("license") = "GPL";
