/*
 * Opens as many files that are not there as the first argument says, one after the
 * other, and enters a namespace that is none ten times among them, the last time
 * behind them all. Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALARMS 10

int main(int argc, char **argv)
{
	(void)argc;
	long files = atol(argv[1]);
	char path[64];
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	for (long i = 1; i <= files; i++) {
		snprintf(path, sizeof(path), "/nowhere/%ld", i);
		syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
		if (i % (files / ALARMS) == 0)
			syscall(SYS_setns, 1000000 + i / (files / ALARMS), CLONE_NEWNET);
	}
	return 0;
}
