// A PC's own devices, as far as ring 0 must drive them: local APIC timer, first serial port, power off.
//
// Only on MachineKind::pc. The APIC is at kBlockApic of the vCPU's block (Intel SDM 3A §11.4); the kernel drives the serial port
// itself (ports 0x3f8 to 0x3ff are open to ring 3), the nub writes there before the kernel runs and when all is lost.
#include "nub/nub.h"

namespace husk::nub {
namespace {

constexpr u16 kCom1 = 0x3f8;
enum Apic : u64 { kSpurious = 0xf0, kEoi = 0xb0, kTimer = 0x320, kInitialCount = 0x380, kDivide = 0x3e0 };

volatile u32& apic(Apic offset) { return *reinterpret_cast<volatile u32*>(abi::kNubVcpuBase + abi::kBlockApic + offset); }

}  // namespace

void apic_start() {
  apic(kSpurious) = 0x100 | HUSK_VECTOR_SPURIOUS;
  apic(kDivide) = 0xb;  // by 1
  apic(kTimer) = HUSK_VECTOR_TIMER;
}

void apic_arm(u64 deadline_tsc) {
  u64 now = read_tsc();
  u64 ticks = 0;
  if (deadline_tsc != 0) {
    u64 wait = deadline_tsc > now ? deadline_tsc - now : 1;
    if (wait > u64{1} << 36) wait = u64{1} << 36;  // an early timer interrupt is a spurious one
    ticks = (wait * nub_state.tsc_per_apic_tick_shift24) >> 24;
    if (ticks == 0) ticks = 1;
    if (ticks > 0xffffffff) ticks = 0xffffffff;
  }
  apic(kInitialCount) = static_cast<u32>(ticks);
}

void apic_end_of_interrupt() { apic(kEoi) = 0; }

void serial_write(const char* text, u64 size) {
  for (u64 i = 0; i < size && text[i] != 0; ++i) {
    for (int wait = 0; wait < 100000 && !(in8(kCom1 + 5) & 0x20); ++wait) {}
    out8(kCom1, static_cast<u8>(text[i]));
  }
}

// Soft off by the port that SeaBIOS gives a q35 (nothing listens there elsewhere), else a triple fault: resets the machine, which
// QEMU's -no-reboot turns into an exit; elsewhere the CPU stays halted.
void power_off() {
  asm volatile("outw %%ax, %%dx" : : "a"(0x2000), "d"(0x604));
  struct [[gnu::packed]] {
    u16 limit = 0;
    u64 base = 0;
  } none;
  asm volatile("lidt %0; ud2" : : "m"(none));
  for (;;) asm volatile("cli; hlt");
}

}  // namespace husk::nub
