// See vcpu.h.
#include "vmm/kvm/vcpu.h"

#include <cpuid.h>
#include <errno.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cstring>
#include <memory>

#include "vmm/kvm/kvm_ioctl.h"
#include "vmm/monitor_error.h"

namespace husk::vmm {
namespace {

constexpr u32 kMsrTsc = 0x10;
constexpr u16 kFatalPort = 0xf4;  // nub/calls.cc nub_fatal

void install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(Vcpu::kick_signal(), &action, nullptr);
}

// What the processor itself says, leaf by leaf. KVM's own list is the base; some software KVMs understate it, and ring 3 runs natively
// anyway, so the feature leaves that only ring 3 uses come from the processor.
void take_native(kvm_cpuid_entry2& entry, u32 eax, u32 ebx, u32 ecx, u32 edx) {
  u32 a, b, c, d;
  __cpuid_count(entry.function, entry.index, a, b, c, d);
  entry.eax |= a & eax;
  entry.ebx |= b & ebx;
  entry.ecx |= c & ecx;
  entry.edx |= d & edx;
}

// CPUID bits of instructions that need no support from a kernel beyond XCR0 (Intel SDM 2A, CPUID).
constexpr u32 kLeaf1Ecx =
    1 << 0 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29 | 1 << 30;
constexpr u32 kLeaf7Ebx = 1u << 0 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 |
                          1 << 24 | 1 << 28 | 1 << 29 | 1 << 30 | 1u << 31;
constexpr u32 kLeaf7Ecx = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 22 | 1 << 25 | 1 << 27 | 1 << 28;
constexpr u32 kLeaf7Edx = 1 << 4 | 1 << 14 | 1 << 23;
constexpr u32 kLeaf71Eax = 1 << 4 | 1 << 5 | 1 << 10 | 1 << 11 | 1 << 12;
// Not offered: MONITOR, VMX, PCID, x2APIC, TSC deadline; HLE, RTM, MPX, PT, LA57, PKU, AMX, CET.
constexpr u32 kHideLeaf1Ecx = 1 << 3 | 1 << 5 | 1 << 17 | 1 << 21 | 1 << 24;
constexpr u32 kHideLeaf7Ebx = 1 << 4 | 1 << 11 | 1 << 14 | 1 << 25;
constexpr u32 kHideLeaf7Ecx = 1 << 3 | 1 << 4 | 1 << 7 | 1 << 16;
constexpr u32 kHideLeaf7Edx = 1 << 20 | 1 << 22 | 1 << 24 | 1 << 25;
constexpr u64 kXcr0Offered = 0xe7;  // x87, SSE, AVX, AVX-512

void edit_leaf(kvm_cpuid_entry2& entry) {
  if (entry.function == 1) {
    take_native(entry, 0, 0, kLeaf1Ecx, 0);
    entry.ecx &= ~kHideLeaf1Ecx;
    entry.ecx |= 1 << 27 | 1u << 31;                 // OSXSAVE follows CR4, hypervisor
    entry.ebx = (entry.ebx & 0x0000ffff) | 1 << 16;  // APIC id 0, one logical processor
    entry.edx &= ~u32{1 << 28};
  } else if (entry.function == 7 && entry.index == 0) {
    take_native(entry, 0, kLeaf7Ebx, kLeaf7Ecx, kLeaf7Edx);
    entry.ebx &= ~kHideLeaf7Ebx;
    entry.ecx &= ~kHideLeaf7Ecx;
    entry.edx &= ~kHideLeaf7Edx;
  } else if (entry.function == 7 && entry.index == 1) {
    take_native(entry, kLeaf71Eax, 0, 0, 0);
    entry.eax &= kLeaf71Eax;
    entry.edx = 0;
  } else if (entry.function == 0xd) {
    if (entry.index == 0) {
      take_native(entry, kXcr0Offered, ~0u, ~0u, 0);
      entry.eax &= kXcr0Offered;
    } else if (entry.index == 1) {
      take_native(entry, 7, 0, 0, 0);  // XSAVEOPT, XSAVEC, XGETBV(1); no XSAVES
      entry.eax &= 7;
      entry.ebx = entry.ecx = entry.edx = 0;
    }
  } else if (entry.function == 4 || entry.function == 2 || entry.function == 0x80000005 || entry.function == 0x80000006 ||
             (entry.function >= 0x80000002 && entry.function <= 0x80000004)) {
    take_native(entry, ~0u, ~0u, ~0u, ~0u);        // caches (glibc sizes its copies by them) and the processor's name
    if (entry.function == 4) entry.eax &= 0x3fff;  // one core, nothing shared
  } else if (entry.function == 0x80000001) {
    take_native(entry, 0, 0, 1 << 0 | 1 << 5 | 1 << 8, 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29);
  } else if (entry.function == 0x80000007) {
    entry.edx |= 1 << 8;  // invariant TSC: the only clock that guests have
  }
}

bool offered(const kvm_cpuid_entry2& entry) {
  // No paravirtual features of KVM; no PMU, topology, trace, SGX, AMX tile leaves: zero leaves say the same.
  if (entry.function >= 0x40000000 && entry.function < 0x50000000) return false;
  return entry.function <= 7 || entry.function == 0xd || entry.function >= 0x80000000;
}

}  // namespace

Vcpu::Vcpu(Vm& vm, u32 index) : vcpu_(ioctl(vm.fd(), KVM_CREATE_VCPU, index)) {
  if (vcpu_.get() < 0) throw_errno("creating a virtual CPU");
  run_size_ = static_cast<size_t>(ioctl(vm.system_fd(), KVM_GET_VCPU_MMAP_SIZE, 0));
  void* shared = mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_.get(), 0);
  if (shared == MAP_FAILED) throw_errno("mapping a virtual CPU's page");
  run_ = static_cast<kvm_run*>(shared);
  set_cpuid(vm);
  int khz = ioctl(vcpu_.get(), KVM_GET_TSC_KHZ, 0);
  if (khz <= 0) throw MonitorError("this KVM does not know the TSC's frequency");
  tsc_frequency_ = static_cast<u64>(khz) * 1000;
  if (has_hardware_virtualization()) share_tsc();
  install_kick_handler();
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) munmap(run_, run_size_);
}

void Vcpu::set_cpuid(Vm& vm) {
  auto supported = std::make_unique<CpuidTable>();
  auto table = std::make_unique<CpuidTable>();
  supported->count = kCpuidEntriesMax;
  if (ioctl(vm.system_fd(), kGetSupportedCpuid, supported.get()) != 0) throw_errno("asking KVM for CPU features");
  for (u32 i = 0; i < supported->count; ++i) {
    kvm_cpuid_entry2 entry = supported->entries[i];
    if (!offered(entry)) continue;
    edit_leaf(entry);
    if (entry.function == 0) entry.eax = 0x16;
    if (entry.function == 7 && entry.index == 0) {
      features_.fsgsbase = entry.ebx & 1;
      features_.smep = entry.ebx >> 7 & 1;
      features_.smap = entry.ebx >> 20 & 1;
      features_.umip = entry.ecx >> 2 & 1;
    }
    if (entry.function == 0xd && entry.index == 0) features_.xcr0 = entry.eax & kXcr0Offered;
    table->entries[table->count++] = entry;
  }
  if (ioctl(vcpu_.get(), kSetCpuid, table.get()) != 0) throw_errno("setting the CPU features");
  if (!features_.fsgsbase) throw MonitorError("this processor lacks FSGSBASE (Ivy Bridge or later has it)");
}

// The guest's TSC is the host's: the clock's start and deadlines are told in it. By itself KVM lets it begin at 0 where it can; without VMX or SVM ring 3 reads
// the host's.
void Vcpu::share_tsc() {
  u64 offset = 0;
  kvm_device_attr attribute{0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, reinterpret_cast<u64>(&offset)};
  if (ioctl(vcpu_.get(), KVM_SET_DEVICE_ATTR, &attribute) == 0) return;
  MsrTable now{1, 0, {{kMsrTsc, 0, __rdtsc()}}};  // before Linux 5.16
  if (ioctl(vcpu_.get(), kSetMsrs, &now) != 1) throw_errno("setting the guest's TSC");
}

void Vcpu::load(const abi::CpuState& state) {
  auto segment = [](u16 selector, u8 type, u8 level, bool code) {
    kvm_segment s{};
    s.selector = selector;
    s.limit = 0xffffffff;
    s.type = type;
    s.present = s.s = s.g = 1;
    s.dpl = level;
    s.l = code;
    s.db = !code;
    return s;
  };
  kvm_sregs sregs;
  if (ioctl(vcpu_.get(), KVM_GET_SREGS, &sregs) != 0) throw_errno("reading the CPU's registers");
  sregs.cs = segment(HUSK_USER_CS, 11, 3, true);
  sregs.ss = sregs.ds = sregs.es = sregs.fs = sregs.gs = segment(HUSK_USER_SS, 3, 3, false);
  sregs.gs.base = state.gs_base;
  sregs.tr = {};
  sregs.tr.base = state.tss_base;
  sregs.tr.limit = state.tss_limit;
  sregs.tr.selector = HUSK_TSS;
  sregs.tr.type = 11;
  sregs.tr.present = 1;
  sregs.ldt = {};
  sregs.ldt.unusable = 1;
  sregs.gdt = {state.gdt_base, state.gdt_limit, {}};
  sregs.idt = {state.idt_base, state.idt_limit, {}};
  sregs.cr0 = state.cr0;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  if (ioctl(vcpu_.get(), KVM_SET_SREGS, &sregs) != 0) throw_errno("setting the CPU's control registers");
  if (state.xcr0 != 0) {
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = state.xcr0;
    if (ioctl(vcpu_.get(), KVM_SET_XCRS, &xcrs) != 0) throw_errno("switching on the vector registers");
  }
  MsrTable msrs{};
  for (u32 i = 0; i < state.msr_count; ++i) msrs.entries[msrs.count++] = {state.msrs[i].index, 0, state.msrs[i].value};
  if (ioctl(vcpu_.get(), kSetMsrs, &msrs) != static_cast<int>(msrs.count)) throw_errno("setting the CPU's MSRs");
  kvm_regs regs{};
  regs.rip = state.rip;
  regs.rsp = state.rsp;
  regs.rdi = state.rdi;
  regs.rflags = state.rflags;
  if (ioctl(vcpu_.get(), KVM_SET_REGS, &regs) != 0) throw_errno("setting the CPU's registers");
}

void Vcpu::request(u32 bit) {
  if (requests_.fetch_or(bit) & bit) return;  // somebody did, and the vCPU thread has not taken it yet
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  if (parked_.load()) syscall(SYS_futex, &requests_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  if (int thread = thread_.load(); thread != 0) syscall(SYS_tgkill, getpid(), thread, kick_signal());
}
void Vcpu::request_interrupt() { request(kInterrupt); }
void Vcpu::request_stop() { request(kStop); }
void Vcpu::unpark() { request(kUnpark); }

bool Vcpu::wake_if_parked() {
  requests_.fetch_or(kWake);
  if (!parked_.load()) return false;
  syscall(SYS_futex, &requests_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  return true;
}

// True if an interrupt was handed over or none is wanted; else KVM is asked to exit when the guest can take one.
bool Vcpu::inject_if_ready() {
  run_->request_interrupt_window = 0;
  if (!(requests_.load() & kInterrupt)) return true;
  if (!run_->ready_for_interrupt_injection) {
    run_->request_interrupt_window = 1;
    return false;
  }
  requests_.fetch_and(~u32{kInterrupt});
  kvm_interrupt interrupt{HUSK_VECTOR_EVENT};
  if (ioctl(vcpu_.get(), KVM_INTERRUPT, &interrupt) != 0) return false;
  injected_since_park_ = true;
  ++interrupts_injected_;
  return true;
}

RunEnd Vcpu::run(MmioHandler& handler) {
  thread_ = static_cast<int>(syscall(SYS_gettid));
  for (;;) {
    // Cleared before the requests are read: whoever sets one afterwards sets this again.
    __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
    u32 requests = requests_.load();
    if (requests & kStop) return RunEnd::stopped;
    if (requests & kUnpark) requests_.fetch_and(~u32{kUnpark});
    inject_if_ready();
    if (ioctl(vcpu_.get(), KVM_RUN, 0) != 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      report_crash(fmt::format("KVM_RUN failed: {}", strerror(errno)));
      return RunEnd::crashed;
    }
    switch (run_->exit_reason) {
      case KVM_EXIT_MMIO: {
        u64 value = 0;
        PhysAddr address{run_->mmio.phys_addr};
        if (run_->mmio.is_write) {
          memcpy(&value, run_->mmio.data, run_->mmio.len);
          if (handler.mmio_store(address, run_->mmio.len, value) == MmioHandler::Next::stop) return RunEnd::stopped;
        } else {
          value = handler.mmio_load(address, run_->mmio.len);
          memcpy(run_->mmio.data, &value, run_->mmio.len);
        }
        break;
      }
      case KVM_EXIT_IRQ_WINDOW_OPEN:
      case KVM_EXIT_INTR: break;
      case KVM_EXIT_HLT: park(0); break;
      case KVM_EXIT_IO: report_crash(run_->io.port == kFatalPort ? "the nub stopped the machine" : "port input/output"); return RunEnd::crashed;
      case KVM_EXIT_SHUTDOWN: report_crash("triple fault"); return RunEnd::crashed;
      case KVM_EXIT_INTERNAL_ERROR:
        report_crash(fmt::format("KVM could not emulate an instruction (suberror {})", u32{run_->internal.suberror}));
        return RunEnd::crashed;
      default: report_crash(fmt::format("unexpected exit {}", u32{run_->exit_reason})); return RunEnd::crashed;
    }
  }
}

void Vcpu::park(u64 deadline_tsc, const std::function<bool()>& wake_is_due) {
  if (injected_since_park_) {
    injected_since_park_ = false;
    return;
  }
  parked_ = true;
  // The order of the three is the point: whoever asks after the second sees parked_, and the reason of whoever asked before is seen by the third.
  if ((requests_.fetch_and(~u32{kWake}) & kWake) != 0 && wake_is_due()) {
    parked_ = false;
    return;
  }
  u64 now;
  while (requests_.load() == 0 && (deadline_tsc == 0 || (now = __rdtsc()) < deadline_tsc)) {
    timespec wait;
    if (deadline_tsc != 0) {
      auto ns = static_cast<u64>(static_cast<unsigned __int128>(deadline_tsc - now) * 1000000000 / tsc_frequency_);
      wait = {static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
    }
    syscall(SYS_futex, &requests_, FUTEX_WAIT_PRIVATE, 0, deadline_tsc != 0 ? &wait : nullptr, nullptr, 0);
  }
  parked_ = false;
  requests_.fetch_and(~u32{kInterrupt | kUnpark | kWake});
}

void Vcpu::report_crash(const std::string& reason) {
  kvm_regs r{};
  kvm_sregs s{};
  ioctl(vcpu_.get(), KVM_GET_REGS, &r);
  ioctl(vcpu_.get(), KVM_GET_SREGS, &s);
  crash_report_ = reason;
  if (run_->exit_reason == KVM_EXIT_IO && run_->io.port == kFatalPort) {
    crash_report_ += fmt::format("\n  trap {} error {:#x} address {:#x}, at rip {:#x} cs {:#x} rsp {:#x}", u64{r.rax}, u64{r.rcx}, u64{r.rdx},
                                 u64{r.rbx}, u64{r.rdi}, u64{r.rsi});
    return;
  }
  crash_report_ += fmt::format(
      "\n  rip {:016x} cs {:x} flags {:x} rsp {:016x} ss {:x}\n  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n"
      "  rsi {:016x} rdi {:016x} rbp {:016x} cr2 {:016x}\n  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n"
      "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n  cr0 {:x} cr3 {:x} cr4 {:x} efer {:x} gs {:x}",
      u64{r.rip}, u16{s.cs.selector}, u64{r.rflags}, u64{r.rsp}, u16{s.ss.selector}, u64{r.rax}, u64{r.rbx}, u64{r.rcx}, u64{r.rdx}, u64{r.rsi},
      u64{r.rdi}, u64{r.rbp}, u64{s.cr2}, u64{r.r8}, u64{r.r9}, u64{r.r10}, u64{r.r11}, u64{r.r12}, u64{r.r13}, u64{r.r14}, u64{r.r15}, u64{s.cr0},
      u64{s.cr3}, u64{s.cr4}, u64{s.efer}, u64{s.gs.base});
}

}  // namespace husk::vmm
