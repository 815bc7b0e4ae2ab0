/* A VMM that takes a snapshot asks KVM for the state of nested virtualisation of each virtual CPU. A KVM that is
 * itself emulated may have none to give and refuse, and then there is no snapshot, although the guest never
 * nested anything. Preloaded into the VMM, this passes every request on, and where that one is refused answers
 * "nothing is nested": a header without data.
 *
 * Plain constants instead of <linux/kvm.h>, so that a C compiler is all that is needed.
 */
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* _IOWR(KVMIO, 0xbe, struct kvm_nested_state) */
#define GET_NESTED_STATE 0xc080aebeUL

struct header {
	unsigned short flags;
	unsigned short format;
	unsigned int size;
	unsigned char rest[120];
};

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);

	long result = syscall(SYS_ioctl, fd, request, argument);
	if (result == -1 && (request & 0xffffffffUL) == GET_NESTED_STATE) {
		struct header *state = argument;
		memset(state, 0, sizeof *state);
		state->size = sizeof *state;
		return 0;
	}
	return (int)result;
}
