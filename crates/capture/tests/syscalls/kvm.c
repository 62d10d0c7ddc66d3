/*
 * Runs a guest of two vCPUs on KVM, each on a thread of its own: the first writes to a
 * port as often as the first argument says and halts, each of which leaves the guest;
 * the second does as often as the second says. Begins on SIGUSR1. Ends with 77 where KVM
 * cannot be used.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static int vcpus[2], times[2];

/* Makes a vCPU whose program, of ten bytes, is 64 bytes behind that of the former. */
static int make(int kvm, int vm, unsigned char *memory, int number)
{
	/* mov dx,0x3f8; mov cx,times; again: out dx,al; loop again; hlt */
	unsigned char low = times[number] & 255, high = times[number] >> 8;
	unsigned char code[] = {0xba, 0xf8, 0x03, 0xb9, low, high, 0xee, 0xe2, 0xfd, 0xf4};
	memcpy(memory + 64 * number, code, sizeof(code));
	int vcpu = vcpus[number] = ioctl(vm, KVM_CREATE_VCPU, number);
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	mmap(0, size, 3, MAP_SHARED, vcpu, 0);
	struct kvm_sregs special;
	if (vcpu < 0 || ioctl(vcpu, KVM_GET_SREGS, &special))
		return 0;
	special.cs.base = special.cs.selector = 0;
	ioctl(vcpu, KVM_SET_SREGS, &special);
	struct kvm_regs registers = {.rip = 0x1000 + 64 * number, .rflags = 2};
	return !ioctl(vcpu, KVM_SET_REGS, &registers);
}

static void run(int number)
{
	for (int i = 0; i <= times[number]; i++)
		if (ioctl(vcpus[number], KVM_RUN, 0))
			exit(1);
}

static void *second(void *nothing)
{
	prctl(PR_SET_NAME, "fc_vcpu 1");
	run(1);
	return nothing;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	times[0] = atoi(argv[1]);
	times[1] = atoi(argv[2]);
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (kvm < 0 || vm < 0)
		return 77;
	unsigned char *memory = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {0, 0, 0x1000, 4096, (unsigned long)memory};
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (!make(kvm, vm, memory, 0) || !make(kvm, vm, memory, 1))
		return 77;
	sigset_t wait;
	int got;
	pthread_t thread;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "fc_vcpu 0");
	sigwait(&wait, &got);
	if (pthread_create(&thread, 0, second, 0))
		return 3;
	run(0);
	pthread_join(thread, 0);
	return 0;
}
