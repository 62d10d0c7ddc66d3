/*
 * Makes calls by the numbers of programs with short pointers, which the kernel may
 * not have: getpid, and an execve of a program that is not there. Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define X32_BIT 0x40000000

int main(void)
{
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	syscall(X32_BIT | 39);
	syscall(X32_BIT | 520, "/nowhere/program", 0, 0);
	return 0;
}
