/*
 * Makes system calls whose number is known before it starts: threads, forks,
 * signals, calls that are interrupted and restarted, calls through int 0x80,
 * and another program. Waits without a system call until the first byte of
 * the file given as its argument is no longer 0, so that a tracer can attach.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define LOOPS 100

static void handler(int signal) { (void)signal; }

static void handle(int signal, int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigaction(signal, &action, 0);
}

static void nap(long millis)
{
	struct timespec time = {0, millis * 1000000L};
	syscall(SYS_nanosleep, &time, 0);
}

static void *work(void *argument)
{
	(void)argument;
	for (int i = 0; i < LOOPS; i++) {
		syscall(SYS_getppid);
		syscall(SYS_close, -1);
	}
	return 0;
}

static void threads(void)
{
	pthread_t all[THREADS];
	for (int i = 0; i < THREADS; i++)
		pthread_create(&all[i], 0, work, 0);
	/* Looks at memory only, unlike pthread_join. */
	for (int i = 0; i < THREADS; i++)
		while (pthread_tryjoin_np(all[i], 0))
			;
}

static void processes(const char *program)
{
	for (int i = 0; i < 3; i++) {
		pid_t child = fork();
		if (child == 0) {
			for (int k = 0; k < LOOPS; k++)
				syscall(SYS_getuid);
			if (i == 2) {
				char *argv[] = {(char *)program, "again", 0};
				execv(program, argv);
			}
			_exit(0);
		}
		while (waitpid(child, 0, 0) != child)
			;
	}
}

/* Another process signals this one while it sleeps. */
static void interrupted(int signal, int then, int ends[2])
{
	pid_t own = getpid();
	pid_t child = fork();
	if (child == 0) {
		nap(60);
		kill(own, signal);
		nap(60);
		if (then)
			kill(own, then);
		nap(60);
		write(ends[1], "x", 1);
		_exit(0);
	}
	char byte;
	if (then)
		nap(300);
	read(ends[0], &byte, 1);
	waitpid(child, 0, 0);
}

static void old_calls(void)
{
#ifdef __x86_64__
	for (int i = 0; i < 7; i++) {
		long result;
		/* getpid, then close of a descriptor that is none */
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "r8", "r9", "r10", "r11", "memory");
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(6), "b"(-1) : "r8", "r9", "r10", "r11", "memory");
	}
#endif
}

int main(int argc, char **argv)
{
	(void)argc;
	if (argv[1][0] == 'a') {
		for (int i = 0; i < LOOPS; i++)
			syscall(SYS_getgid);
		return 0;
	}
	int file = open(argv[1], O_RDWR);
	volatile char *go = mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
	int ends[2];
	pipe(ends);
	handle(SIGUSR1, 0);
	handle(SIGUSR2, SA_RESTART);
	while (!*go)
		;
	threads();
	processes(argv[0]);
	interrupted(SIGUSR2, 0, ends);
	interrupted(SIGUSR1, SIGUSR2, ends);
	interrupted(SIGSTOP, SIGCONT, ends);
	old_calls();
	return 0;
}
