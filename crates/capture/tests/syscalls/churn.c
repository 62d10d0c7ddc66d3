/*
 * Keeps about 500 threads alive that end and are made anew, until the first
 * argument's seconds are over; then ends with status 0 if all of them worked.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS 500

static void *work(void *argument)
{
	struct timespec time = {0, (long)(1 + (long)argument % 20) * 1000000L};
	for (int i = 0; i < 3; i++) {
		syscall(SYS_getppid);
		nanosleep(&time, 0);
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t all[THREADS];
	(void)argc;
	time_t end = time(0) + atoi(argv[1]);
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&all[i], &attributes, work, (void *)i))
			return 1;
	for (long i = 0; time(0) < end; i = (i + 1) % THREADS) {
		if (pthread_join(all[i], 0))
			return 2;
		if (pthread_create(&all[i], &attributes, work, (void *)i))
			return 3;
	}
	for (long i = 0; i < THREADS; i++)
		if (pthread_join(all[i], 0))
			return 4;
	return 0;
}
