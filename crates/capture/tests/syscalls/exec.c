/*
 * Executes /bin/true, whose name and arguments are in a file that is mapped and
 * never touched: the first argument. With a second one another thread does so.
 * Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static char *page;

static void *executes(void *argument)
{
	execve(page, (char **)(page + 256), 0);
	return argument;
}

int main(int argc, char **argv)
{
	static union {
		char text[4096];
		char *list[512];
	} content;
	const char path[] = "/bin/true", word[] = "quietly";
	sigset_t wait;
	pthread_t thread;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	int file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0 || ftruncate(file, 4096))
		return 1;
	page = mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		return 2;
	__builtin_memcpy(content.text, path, sizeof(path));
	__builtin_memcpy(content.text + 64, word, sizeof(word));
	content.list[32] = page;
	content.list[33] = page + 64;
	if (pwrite(file, &content, 4096, 0) != 4096)
		return 3;
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	if (argc > 2) {
		pthread_create(&thread, 0, executes, 0);
		pause();
	}
	executes(0);
	return 4;
}
