/*
 * Starts processes, as many as the first argument says, one after the other, each
 * of which ends with eight threads side by side. Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8

static void *waits(void *argument)
{
	for (;;)
		pause();
	return argument;
}

int main(int argc, char **argv)
{
	(void)argc;
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	for (int i = atoi(argv[1]); i > 0; i--) {
		pthread_t thread;
		pid_t child = fork();
		if (!child) {
			for (int k = 0; k < THREADS; k++)
				if (pthread_create(&thread, 0, waits, 0))
					return 1;
			_exit(0);
		}
		if (waitpid(child, 0, 0) != child)
			return 2;
	}
	return 0;
}
