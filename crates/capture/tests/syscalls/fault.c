/*
 * Opens a file whose name is in a page that nobody brings in for two seconds,
 * or as many as the first argument says (userfaultfd). Begins on SIGUSR1; ends with 77 where the kernel refuses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *page;
static int fault, seconds;

static void *brings(void *argument)
{
	struct uffdio_zeropage zero = {.range = {(unsigned long)page, 4096}};
	sleep(seconds);
	ioctl(fault, UFFDIO_ZEROPAGE, &zero);
	return argument;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = {.api = UFFD_API};
	pthread_t thread;
	sigset_t wait;
	int got;
	seconds = argc > 1 ? atoi(argv[1]) : 2;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fault = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_register area = {.range = {(unsigned long)page, 4096},
				       .mode = UFFDIO_REGISTER_MODE_MISSING};
	if (fault < 0 || ioctl(fault, UFFDIO_API, &api) || ioctl(fault, UFFDIO_REGISTER, &area)) {
		prctl(PR_SET_NAME, "refused");
		return 77;
	}
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	pthread_create(&thread, 0, brings, 0);
	open(page, O_RDONLY);
	open("/nowhere/after", O_RDONLY);
	return 0;
}
