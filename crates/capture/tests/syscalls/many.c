/*
 * 500 threads that are all there at the same time and make calls whose number is
 * known: whatever is not counted of them was lost. Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 500
#define CALLS 10

static int ends[2];

static void *work(void *argument)
{
	char byte;
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	/* Until all are there. */
	read(ends[0], &byte, 1);
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getuid);
	return argument;
}

int main(void)
{
	static pthread_t all[THREADS];
	pthread_attr_t attributes;
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	if (pipe(ends))
		return 1;
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&all[i], &attributes, work, 0))
			return 2;
	close(ends[1]);
	/* Looks at memory only, unlike pthread_join. */
	for (int i = 0; i < THREADS; i++)
		while (pthread_tryjoin_np(all[i], 0))
			;
	return 0;
}
