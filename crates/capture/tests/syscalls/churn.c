/*
 * Keeps 550 threads alive that end and are made anew, until SIGUSR1; then ends with
 * status 0 if all of them worked. Each makes three calls that are counted and lives
 * for 0.3 to 0.9 seconds.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS 550

static atomic_int alive;
static volatile sig_atomic_t over;

static void ends(int signal)
{
	over = signal;
}

static void *work(void *argument)
{
	struct timespec time = {0, (100 + (long)argument % 200) * 1000000L};
	for (int i = 0; i < 3; i++) {
		syscall(SYS_getppid);
		nanosleep(&time, 0);
	}
	atomic_fetch_sub(&alive, 1);
	return 0;
}

int main(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	signal(SIGUSR1, ends);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	for (long made = 0; !over;) {
		if (atomic_load(&alive) >= THREADS) {
			usleep(1000);
			continue;
		}
		atomic_fetch_add(&alive, 1);
		if (pthread_create(&thread, &attributes, work, (void *)made++))
			return 1;
	}
	while (atomic_load(&alive))
		usleep(1000);
	return 0;
}
