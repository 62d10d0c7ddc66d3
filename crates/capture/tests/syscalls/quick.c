/*
 * Many short calls with some long ones among them, begun on SIGUSR1; says
 * nanoseconds that all of it took, in a file named by the first argument.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 5
#define CALLS 60000

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

int main(int argc, char **argv)
{
	struct timespec nap = {0, 30000000};
	sigset_t wait;
	int got;
	(void)argc;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	long long began = now();
	for (int i = 0; i < ROUNDS; i++) {
		for (int k = 0; k < CALLS; k++)
			syscall(SYS_getppid);
		syscall(SYS_nanosleep, &nap, 0);
	}
	FILE *file = fopen(argv[1], "w");
	fprintf(file, "%lld\n", now() - began);
	return fclose(file);
}
