// Nub calls: the batch in VcpuShared is read once, operation by operation, into a local, and judged there.
//
// Called by stubs.S on the nub's stack. Nothing in VcpuShared is trusted; results go to fixed fields of it.
#include <errno.h>

#include "nub/nub.h"

namespace husk::abi {
// Read by stubs.S.
static_assert(__builtin_offsetof(NubVcpu, syscall_frame) == 0x28 && __builtin_offsetof(NubVcpu, call_site) == 0x50);
static_assert(__builtin_offsetof(NubVcpu, lstar) == 0x58 && __builtin_offsetof(NubVcpu, scratch) == 0x60 &&
              __builtin_offsetof(NubVcpu, nmi_count) == 0x68 && __builtin_offsetof(NubVcpu, call_frame) == 0x70 && sizeof(NubVcpu) <= kDataGdt);
}  // namespace husk::abi

namespace husk::nub {

// Set by the builder before the nub's first instruction; explicitly in .data: the builder finds it through the image header.
extern "C" {
[[gnu::section(".data")]] constinit abi::NubState nub_state{};
}

namespace {

using abi::MachineKind;
using abi::NubOp;
using abi::VcpuShared;

constexpr u32 kMsrTscAux = 0xc0000103, kMsrTsc = 0x10;

bool on_pc() { return nub_state.machine == MachineKind::pc; }

Errno halt(VcpuShared& shared) {
  if (*const_cast<volatile u8*>(&shared.interrupt_pending) == 0) asm volatile("sti; hlt; cli" : : : "memory");
  return 0;
}

Errno msr_write(const NubCall& call) {
  if (call.va != kMsrTscAux || call.pa > 0xffff) return EPERM;
  write_msr(kMsrTscAux, call.pa);
  return 0;
}

Errno msr_read(const NubCall& call, u64* value) {
  if (call.va != kMsrTscAux && call.va != kMsrTsc) return EPERM;
  *value = read_msr(static_cast<u32>(call.va));
  return 0;
}

Errno perform(const NubCall& call, VcpuShared& shared, u64* result) {
  switch (call.op) {
    case NubOp::none: return 0;
    case NubOp::map: return map(call);
    case NubOp::unmap: return unmap(call);
    case NubOp::protect: return protect(call);
    case NubOp::space_create: return space_create(result);
    case NubOp::space_switch: return space_switch(call.space);
    case NubOp::space_destroy: return space_destroy(call.space);
    case NubOp::seal: return seal(call);
    case NubOp::halt: return halt(shared);
    case NubOp::arm_timer:
      if (!on_pc()) return ENODEV;
      apic_arm(call.pa);
      return 0;
    case NubOp::end_of_interrupt:
      if (on_pc()) apic_end_of_interrupt();
      return 0;
    case NubOp::read_msr: return msr_read(call, result);
    case NubOp::write_msr: return msr_write(call);
    case NubOp::power_off:
      if (!on_pc()) return ENODEV;  // the monitor device does it
      power_off();
    case NubOp::debug_write:
      if (!on_pc()) return ENODEV;
      serial_write(reinterpret_cast<const char*>(&call.va), 24);
      return 0;
    case NubOp::copy:
    case NubOp::send_ipi:
    case NubOp::start_vcpu: return ENOSYS;
  }
  return ENOSYS;
}

}  // namespace

extern "C" i64 nub_call(u64 count, VcpuShared& shared) {
  if (count > abi::kNubCallsMax) return -EINVAL;
  for (u64 i = 0; i < count; ++i) {
    // SAFETY: volatile words, so that the compiler cannot read a field of shared memory twice. Not a loop: every instruction counts.
    const volatile u64* source = reinterpret_cast<const volatile u64*>(&shared.calls[i]);
    union {
      u64 words[5];
      NubCall call;
    };
    words[0] = source[0];
    words[1] = source[1];
    words[2] = source[2];
    words[3] = source[3];
    words[4] = source[4];
    u64 result = call.pa;
    if (Errno error = perform(call, shared, &result)) {
      shared.calls_done = i;
      return -error;
    }
    if (result != call.pa) shared.calls[i].pa = result;
  }
  shared.calls_done = count;
  return 0;
}

// The state is not worth continuing: say what happened and stop. Under the monitor the registers are the message.
extern "C" [[noreturn]] void nub_fatal(u64 vector, u64 error, u64 rip, u64 cs, u64 rsp) {
  u64 address;
  asm volatile("movq %%cr2, %0" : "=r"(address));
  if (!on_pc()) {
    asm volatile("outl %%eax, $0xf4" : : "a"(vector), "b"(rip), "c"(error), "d"(address), "S"(rsp), "D"(cs));
    power_off();
  }
  const u64 values[] = {vector, rip, error, address, rsp, cs};
  serial_write("husk nub: fatal trap: vector rip error address rsp cs\r\n", 55);
  for (u64 value : values) {
    char text[17];
    for (int i = 0; i < 16; ++i) text[i] = "0123456789abcdef"[(value >> (60 - 4 * i)) & 15];
    text[16] = ' ';
    serial_write(text, sizeof(text));
  }
  serial_write("\r\n", 2);
  power_off();
}

// The compiler calls these.
extern "C" void* memcpy(void* to, const void* from, size_t size) {
  void* result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}
extern "C" void* memset(void* to, int value, size_t size) {
  void* result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return result;
}

}  // namespace husk::nub
