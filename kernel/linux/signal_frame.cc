// See signal_frame.h. Layout as in Linux' arch/x86/include/uapi/asm/sigcontext.h and asm/ucontext.h: from high to low addresses the
// vector state (XSAVE standard format with the magic words around it), siginfo, ucontext, the return address (sa_restorer).
#include "kernel/linux/signal_frame.h"

#include <signal.h>
#include <string.h>

#include <algorithm>

#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"
#include "kernel/sched/sched.h"

namespace husk::linux {
namespace {

constexpr u64 kRedZone = 128;
constexpr u32 kMagic1 = 0x46505853, kMagic2 = 0x46505845;  // FP_XSTATE_MAGIC1, 2
constexpr u64 kLegacySize = 512, kHeaderSize = 64, kSoftwareOffset = 464, kMxcsrOffset = 24;
constexpr u64 kContextXstate = 1, kContextSigcontextSs = 2, kContextStrictSs = 4;  // UC_*
// What a handler may change in the flags (FIX_EFLAGS): AC OF DF TF SF ZF AF PF CF RF.
constexpr u64 kFlagsFromContext = 0x50dd5;
constexpr u64 kSaOnStack = 0x08000000, kSaRestorer = 0x04000000;
constexpr u32 kSsDisable = 2, kSsAutodisarm = 1u << 31;

struct StackRecord {
  u64 address;
  u32 flags, pad;
  u64 size;
};
struct Context {  // struct sigcontext
  u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
  u16 cs, gs, fs, ss;
  u64 error, vector, old_mask, address, vector_state, reserved[8];
};
static_assert(sizeof(Context) == 256);
struct UserContext {
  u64 flags, link;
  StackRecord stack;
  Context registers;
  u64 mask;
};
struct Frame {
  u64 return_address;
  UserContext context;
  SignalInfo info;
};
static_assert(sizeof(UserContext) == 304 && sizeof(Frame) == 440);

struct SoftwareBytes {  // struct _fpx_sw_bytes
  u32 magic1, extended_size;
  u64 features;
  u32 state_size, pad[7];
};
static_assert(sizeof(SoftwareBytes) == 48);

// Kernel memory for one XSAVE area, 64-byte aligned, zeroed, with room for the second magic word.
class VectorBuffer {
 public:
  VectorBuffer() : memory_(static_cast<u8*>(mem::allocate(size() + 64))) {
    if (memory_ != nullptr) memset(memory_, 0, size() + 64);
  }
  ~VectorBuffer() { mem::release(memory_); }
  VectorBuffer(const VectorBuffer&) = delete;
  VectorBuffer& operator=(const VectorBuffer&) = delete;
  bool ok() const { return memory_ != nullptr; }
  u8* area() { return reinterpret_cast<u8*>(align_up(reinterpret_cast<u64>(memory_), 64)); }
  static u64 size() { return sched::xsave_size() + sizeof(u32); }

 private:
  u8* memory_;
};

void copy_registers_out(Context& to, const TrapFrame& from) {
  to.r8 = from.r8, to.r9 = from.r9, to.r10 = from.r10, to.r11 = from.r11, to.r12 = from.r12, to.r13 = from.r13;
  to.r14 = from.r14, to.r15 = from.r15, to.rdi = from.rdi, to.rsi = from.rsi, to.rbp = from.rbp, to.rbx = from.rbx;
  to.rdx = from.rdx, to.rax = from.rax, to.rcx = from.rcx, to.rsp = from.rsp, to.rip = from.rip;
  to.rflags = from.rflags;
  to.cs = HUSK_USER_CS;
  to.ss = HUSK_USER_SS;
}

void copy_registers_in(TrapFrame& to, const Context& from) {
  to.r8 = from.r8, to.r9 = from.r9, to.r10 = from.r10, to.r11 = from.r11, to.r12 = from.r12, to.r13 = from.r13;
  to.r14 = from.r14, to.r15 = from.r15, to.rdi = from.rdi, to.rsi = from.rsi, to.rbp = from.rbp, to.rbx = from.rbx;
  to.rdx = from.rdx, to.rax = from.rax, to.rcx = from.rcx, to.rsp = from.rsp, to.rip = from.rip;
  to.rflags = (to.rflags & ~kFlagsFromContext) | (from.rflags & kFlagsFromContext);
  to.cs = HUSK_USER_CS;
  to.ss = HUSK_USER_SS;
  to.orig_rax = ~u64{0};  // a result of -EINTR in rax is the program's own affair
}

u64 stack_for_handler(const Task& task, const TrapFrame& frame, const SignalAction& action) {
  const AlternateStack& alternate = task.alternate_stack;
  bool on_it = alternate.size != 0 && alternate.contains(frame.rsp) && (alternate.flags & kSsAutodisarm) == 0;
  bool enabled = alternate.size != 0 && (alternate.flags & kSsDisable) == 0;
  if ((action.flags & kSaOnStack) != 0 && enabled && !on_it) return alternate.address + alternate.size;
  return frame.rsp - kRedZone;
}

Result<void> push_vector_state(u64 address) {
  VectorBuffer buffer;
  if (!buffer.ok()) return Error(ENOMEM);
  const u32 state_size = sched::xsave_size();
  sched::save_vector_state(buffer.area());
  SoftwareBytes software = {};
  software.magic1 = kMagic1;
  software.extended_size = static_cast<u32>(VectorBuffer::size());
  software.features = sched::xsave_mask();
  software.state_size = state_size;
  memcpy(buffer.area() + kSoftwareOffset, &software, sizeof(software));
  memcpy(buffer.area() + state_size, &kMagic2, sizeof(kMagic2));
  return mem::copy_to_user(address, buffer.area(), VectorBuffer::size());
}

// XRSTOR faults on reserved bits: whatever the program wrote is made acceptable first (Intel SDM 1 §13.8).
void sanitise_vector_state(u8* area, bool extended) {
  u32 control, control_mask;
  memcpy(&control, area + kMxcsrOffset, sizeof(control));
  memcpy(&control_mask, area + kMxcsrOffset + 4, sizeof(control_mask));
  control &= control_mask != 0 ? control_mask & 0xffff : 0xffbf;
  memcpy(area + kMxcsrOffset, &control, sizeof(control));
  u64 present = 3;  // x87 and SSE: all that an FXSAVE image has
  if (extended) memcpy(&present, area + kLegacySize, sizeof(present));
  present &= sched::xsave_mask();
  memset(area + kLegacySize, 0, kHeaderSize);
  memcpy(area + kLegacySize, &present, sizeof(present));
}

Result<void> pop_vector_state(u64 address) {
  if (address == 0) {
    sched::init_vector_state();
    return {};
  }
  VectorBuffer buffer;
  if (!buffer.ok()) return Error(ENOMEM);
  TRY(mem::copy_from_user(buffer.area(), address, kLegacySize));
  SoftwareBytes software;
  memcpy(&software, buffer.area() + kSoftwareOffset, sizeof(software));
  const u32 state_size = sched::xsave_size();
  bool extended = software.magic1 == kMagic1 && software.state_size == state_size && software.extended_size == VectorBuffer::size();
  if (extended) {
    TRY(mem::copy_from_user(buffer.area() + kLegacySize, address + kLegacySize, VectorBuffer::size() - kLegacySize));
    extended = memcmp(buffer.area() + state_size, &kMagic2, sizeof(kMagic2)) == 0;
  }
  sanitise_vector_state(buffer.area(), extended);
  sched::restore_vector_state(buffer.area());
  return {};
}

}  // namespace

u64 signal_frame_size_max() { return align_up(sizeof(Frame) + VectorBuffer::size() + 64 + 16 + kRedZone, 16); }

Result<void> push_signal_frame(Task& task, TrapFrame& frame, const SignalInfo& info, const SignalAction& action, u64 mask_to_restore) {
  if ((action.flags & kSaRestorer) == 0) return Error(EFAULT);  // as on x86-64 Linux
  const u64 vector_state = align_down(stack_for_handler(task, frame, action) - VectorBuffer::size(), 64);
  const u64 stack_pointer = align_down(vector_state - sizeof(Frame), 16) - 8;
  TRY(push_vector_state(vector_state));

  Frame out = {};
  out.return_address = action.restorer;
  out.context.flags = kContextXstate | kContextSigcontextSs | kContextStrictSs;
  const AlternateStack& alternate = task.alternate_stack;
  out.context.stack = {alternate.address, alternate.flags, 0, alternate.size};
  copy_registers_out(out.context.registers, frame);
  out.context.registers.error = task.trap_error;
  out.context.registers.vector = task.trap_vector;
  out.context.registers.address = task.trap_address;
  out.context.registers.old_mask = mask_to_restore;
  out.context.registers.vector_state = vector_state;
  out.context.mask = mask_to_restore;
  out.info = info;
  TRY(mem::copy_to_user(stack_pointer, &out, sizeof(out)));
  if (!alternate.contains(frame.rsp)) task.interrupted_stack = frame.rsp;
  if ((alternate.flags & kSsAutodisarm) != 0) task.alternate_stack = {};

  frame.rdi = static_cast<u64>(info.number);
  frame.rsi = stack_pointer + __builtin_offsetof(Frame, info);
  frame.rdx = stack_pointer + __builtin_offsetof(Frame, context);
  frame.rax = 0;
  frame.rip = action.handler;
  frame.rsp = stack_pointer;
  frame.rflags &= ~u64{0x10500};  // DF, RF, TF
  frame.orig_rax = ~u64{0};
  return {};
}

Result<void> pop_signal_frame(Task& task, TrapFrame& frame) {
  Frame in;
  TRY(mem::copy_from_user(&in, frame.rsp - sizeof(u64), sizeof(in)));
  if (in.context.registers.rip >= kUserEnd) return Error(EFAULT);  // IRETQ would fault in the kernel
  TRY(pop_vector_state(in.context.registers.vector_state));
  copy_registers_in(frame, in.context.registers);
  const StackRecord& stack = in.context.stack;
  if ((stack.flags & ~kSsAutodisarm & ~u32{1}) == 0 || (stack.flags & kSsDisable) != 0) {
    task.alternate_stack = {stack.address, stack.size, stack.flags};
  }
  set_signal_mask(in.context.mask);
  return {};
}

}  // namespace husk::linux
