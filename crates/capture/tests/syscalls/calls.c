/*
 * Makes each call that is reported one by one, in a way that the kernel
 * refuses or that does nothing. Begins on SIGUSR1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	sigset_t wait;
	int got;
	char *arguments[] = {"/nowhere/program", "-x", "word", 0};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9)};
	inet_aton("127.0.0.9", &address.sin_addr);
	sigemptyset(&wait);
	sigaddset(&wait, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wait, 0);
	prctl(PR_SET_NAME, "ready");
	while (sigwait(&wait, &got) == EINTR)
		;
	syscall(SYS_execve, arguments[0], arguments, 0);
	syscall(SYS_execveat, -1, "nowhere", arguments, 0, 0x100);
	syscall(SYS_connect, -1, &address, sizeof(address));
	syscall(SYS_bind, -1, &address, sizeof(address));
	syscall(SYS_openat, AT_FDCWD, "/nowhere/file", O_WRONLY | O_CREAT, 0600);
	syscall(SYS_mount, "/nowhere/disk", "/nowhere/mnt", "ext4", 0x1001, 0);
	syscall(SYS_umount2, "/nowhere/mnt", 2);
	syscall(SYS_pivot_root, "/nowhere/new", "/nowhere/old");
	syscall(SYS_chroot, "/nowhere/root");
	syscall(SYS_fsopen, "nowherefs", 1);
	syscall(SYS_fsconfig, -1, 1, "source", "/nowhere/disk", 0);
	syscall(SYS_fsmount, -1, 1, 4);
	syscall(SYS_move_mount, -1, "from", -1, "to", 4);
	syscall(SYS_open_tree, -1, "nowhere", 1);
	syscall(SYS_setns, -1, 0x40000000);
	syscall(SYS_unshare, 0x00000001);
	syscall(SYS_ptrace, 16, 0x7ffffff0, 0, 0);
	syscall(SYS_bpf, 5, 0, 0);
	syscall(SYS_prctl, 0x5961, 7, 8, 9, 10);
	syscall(SYS_kexec_load, 0x1000, 17, 0, 0x30000);
	syscall(SYS_kexec_file_load, -1, -1, 8, "panic=1", 0x80);
	syscall(SYS_init_module, 0, 0, "debug=1");
	syscall(SYS_finit_module, -1, "debug=2", 3);
	syscall(SYS_delete_module, "nowhere", O_NONBLOCK);
	syscall(SYS_process_vm_readv, 0x7ffffff0, 0, 0, 0, 0, 0);
	return 0;
}
