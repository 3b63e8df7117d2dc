// Signals as data: sets, actions, pending queues. Pure, hosted-testable; delivery is in signal_delivery.cc. signal(7).
#pragma once
#undef linux

#include <signal.h>

#include "base/list.h"
#include "base/ref.h"
#include "base/result.h"
#include "base/types.h"

namespace husk::linux {

constexpr int kSignalMax = 64;
constexpr u64 signal_bit(int number) { return u64{1} << (number - 1); }
constexpr u64 kUnblockable = signal_bit(SIGKILL) | signal_bit(SIGSTOP);

// siginfo_t as the program sees it (128 bytes).
struct SignalInfo {
  int number = 0, error = 0, code = 0, pad = 0;
  union Fields {
    struct {
      int pid;
      u32 uid;
      u64 value;
    } sender;  // kill, sigqueue
    struct {
      int id, overrun;
      u64 value;
    } timer;  // SI_TIMER
    struct {
      u64 address;
    } fault;  // SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP
    struct {
      int pid;
      u32 uid;
      int status;
    } child;
    u8 bytes[112];
  } fields = {.bytes = {}};
};
static_assert(sizeof(SignalInfo) == 128);

// struct kernel_sigaction.
struct SignalAction {
  u64 handler = 0;  // SIG_DFL 0, SIG_IGN 1
  u64 flags = 0, restorer = 0, mask = 0;
};
static_assert(sizeof(SignalAction) == 32);

struct SignalActions : RefCounted<SignalActions> {
  SignalAction of[kSignalMax + 1];
};

struct AlternateStack {
  u64 address = 0, size = 0;
  u32 flags = 2;  // SS_DISABLE
  bool contains(u64 stack_pointer) const { return stack_pointer > address && stack_pointer - address <= size; }
};

enum class DefaultAction : u8 { ignore, terminate, dump, stop };
DefaultAction default_action(int number);
bool is_ignored(const SignalAction& action, int number);

// Standard signals are pending once; real-time signals queue, in order of arrival, lowest number first.
struct PendingTag;
class PendingSignals {
 public:
  ~PendingSignals() { discard(~u64{0}); }
  u64 set() const { return set_; }
  // False if nothing was queued because it was pending already. EAGAIN-like exhaustion of real-time signals counts as queued
  // without information, as on Linux.
  bool add(const SignalInfo& info);
  // Takes the next one that is in `wanted`: synchronous faults first, then by number.
  bool take(u64 wanted, SignalInfo* info);
  void discard(u64 signals);

 private:
  struct Item;
  List<Item, PendingTag> items_;
  u64 set_ = 0;
  u32 queued_ = 0;
};

}  // namespace husk::linux
