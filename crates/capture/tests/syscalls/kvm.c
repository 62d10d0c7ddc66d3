/*
 * Runs a guest of ten bytes on KVM: it writes to a port as often as the first
 * argument says and halts, each of which leaves the guest. Begins on SIGUSR1.
 * Ends with 77 where KVM cannot be used.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	(void)argc;
	int times = atoi(argv[1]);
	/* mov dx,0x3f8; mov cx,times; again: out dx,al; loop again; hlt */
	unsigned char code[] = {0xba, 0xf8, 0x03, 0xb9, times & 255, times >> 8, 0xee, 0xe2, 0xfd, 0xf4};
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (kvm < 0 || vm < 0)
		return 77;
	unsigned char *memory = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(memory, code, sizeof(code));
	struct kvm_userspace_memory_region region = {0, 0, 0x1000, 4096, (unsigned long)memory};
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(0, size, 3, MAP_SHARED, vcpu, 0);
	struct kvm_sregs special;
	if (vcpu < 0 || ioctl(vcpu, KVM_GET_SREGS, &special))
		return 77;
	special.cs.base = special.cs.selector = 0;
	ioctl(vcpu, KVM_SET_SREGS, &special);
	struct kvm_regs registers = {.rip = 0x1000, .rflags = 2};
	ioctl(vcpu, KVM_SET_REGS, &registers);
	sigset_t wait;
	int got;
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "fc_vcpu 0");
	sigwait(&wait, &got);
	for (int i = 0; i <= times; i++)
		if (ioctl(vcpu, KVM_RUN, 0))
			return 1;
	return 0;
}
