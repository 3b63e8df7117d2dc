// See signal_state.h.
#include "kernel/linux/signal_state.h"

namespace husk::linux {

struct PendingSignals::Item : ListNode<PendingTag> {
  SignalInfo info;
};

namespace {
constexpr u32 kQueuedMax = 8192;  // as RLIMIT_SIGPENDING
constexpr int kRealTimeFirst = 32;
constexpr u64 kSynchronous =
    signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGFPE) | signal_bit(SIGSYS);
}  // namespace

DefaultAction default_action(int number) {
  switch (number) {
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
    case SIGCONT: return DefaultAction::ignore;
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU: return DefaultAction::stop;
    case SIGQUIT:
    case SIGILL:
    case SIGTRAP:
    case SIGABRT:
    case SIGBUS:
    case SIGFPE:
    case SIGSEGV:
    case SIGXCPU:
    case SIGXFSZ:
    case SIGSYS: return DefaultAction::dump;
    default: return DefaultAction::terminate;
  }
}

bool is_ignored(const SignalAction& action, int number) {
  if (action.handler == 1) return true;
  if (action.handler != 0) return false;
  DefaultAction by_default = default_action(number);
  return by_default == DefaultAction::ignore || by_default == DefaultAction::stop;
}

bool PendingSignals::add(const SignalInfo& info) {
  u64 bit = signal_bit(info.number);
  if (info.number < kRealTimeFirst && (set_ & bit) != 0) return false;
  set_ |= bit;
  if (queued_ >= kQueuedMax) return true;
  Item* item = new (std::nothrow) Item;
  if (item == nullptr) return true;
  item->info = info;
  items_.push_back(item);
  ++queued_;
  return true;
}

bool PendingSignals::take(u64 wanted, SignalInfo* info) {
  u64 candidates = set_ & wanted;
  if (candidates == 0) return false;
  if ((candidates & kSynchronous) != 0) candidates &= kSynchronous;
  int number = __builtin_ctzll(candidates) + 1;
  Item* found = nullptr;
  bool more = false;
  for (Item& item : items_) {
    if (item.info.number != number) continue;
    if (found != nullptr) {
      more = true;
      break;
    }
    found = &item;
  }
  if (!more) set_ &= ~signal_bit(number);
  if (found == nullptr) {  // its information did not fit
    *info = SignalInfo{};
    info->number = number;
    return true;
  }
  *info = found->info;
  found->unlink();
  --queued_;
  delete found;
  return true;
}

void PendingSignals::discard(u64 signals) {
  SignalInfo ignored;
  while (take(signals, &ignored)) {}
}

}  // namespace husk::linux
