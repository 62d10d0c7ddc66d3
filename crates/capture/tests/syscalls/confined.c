/*
 * Meets a seccomp filter: getpgid and execve are forbidden, and getpgid through
 * int 0x80, which is called instead where there is a second argument. The first
 * says what the filter does (kill, thread, trap, errno); with trap, the signal's
 * handler ends as Firecracker's does. Begins on SIGUSR1. With idle or late there
 * is none at first: it then becomes a vCPU, late puts a filter on a moment after
 * that, as Firecracker does, and the next SIGUSR1 ends it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of asm/unistd_32.h. */
#define OLD_GETPGID 132

static int old;

static void violated(int signal)
{
	(void)signal;
	_exit(148);
}

static void *forbidden(void *argument)
{
	if (old) {
		long result;
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(OLD_GETPGID), "b"(0) : "r8", "r9", "r10", "r11", "memory");
	} else {
		syscall(SYS_getpgid, 0);
	}
	return argument;
}

int main(int argc, char **argv)
{
	old = argc > 2;
	unsigned action = SECCOMP_RET_TRAP;
	if (!strcmp(argv[1], "kill"))
		action = SECCOMP_RET_KILL_PROCESS;
	if (!strcmp(argv[1], "thread"))
		action = SECCOMP_RET_KILL_THREAD;
	if (!strcmp(argv[1], "errno"))
		action = SECCOMP_RET_ERRNO | EPERM;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_I386, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OLD_GETPGID, 3, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof(code) / sizeof(*code), code};
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	signal(SIGSYS, violated);
	int unconfined = !strcmp(argv[1], "idle") || !strcmp(argv[1], "late");
	if (!unconfined) {
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			return 1;
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
			return 2;
	}
	prctl(PR_SET_NAME, "ready");
	/* A tracer that lets go of it may wake it. */
	while (sigwait(&wait, &got) == EINTR)
		;
	if (!strcmp(argv[1], "thread")) {
		pthread_t thread;
		pthread_create(&thread, 0, forbidden, 0);
		sleep(1);
	} else if (!strcmp(argv[1], "errno")) {
		char *arguments[] = {"/bin/true", "now", 0};
		execve(arguments[0], arguments, 0);
		forbidden(0);
	} else if (unconfined) {
		prctl(PR_SET_NAME, "fc_vcpu 0");
		if (!strcmp(argv[1], "late")) {
			usleep(200000);
			if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
			    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
				return 3;
		}
		while (sigwait(&wait, &got) == EINTR)
			;
	} else {
		forbidden(0);
	}
	return 0;
}
