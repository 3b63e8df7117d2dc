#include "kernel/linux/signal_state.h"

#include <gtest/gtest.h>

namespace husk::linux {
namespace {

SignalInfo signal_of(int number, u64 value = 0) {
  SignalInfo info;
  info.number = number;
  info.fields.sender.value = value;
  return info;
}

TEST(PendingSignals, standard_signals_are_pending_once) {
  PendingSignals pending;
  EXPECT_TRUE(pending.add(signal_of(SIGUSR1, 1)));
  EXPECT_FALSE(pending.add(signal_of(SIGUSR1, 2)));
  SignalInfo info;
  EXPECT_TRUE(pending.take(~u64{0}, &info));
  EXPECT_EQ(info.fields.sender.value, 1u);
  EXPECT_FALSE(pending.take(~u64{0}, &info));
}

TEST(PendingSignals, real_time_signals_queue_in_order) {
  PendingSignals pending;
  for (u64 i = 0; i < 3; ++i) pending.add(signal_of(40, i));
  pending.add(signal_of(35, 9));
  SignalInfo info;
  EXPECT_TRUE(pending.take(~u64{0}, &info));
  EXPECT_EQ(info.number, 35);
  for (u64 i = 0; i < 3; ++i) {
    EXPECT_EQ(pending.set(), signal_bit(40));
    EXPECT_TRUE(pending.take(~u64{0}, &info));
    EXPECT_EQ(info.fields.sender.value, i);
  }
  EXPECT_EQ(pending.set(), 0u);
}

TEST(PendingSignals, only_wanted_ones_and_faults_first) {
  PendingSignals pending;
  pending.add(signal_of(SIGHUP));
  pending.add(signal_of(SIGSEGV));
  pending.add(signal_of(SIGTERM));
  SignalInfo info;
  EXPECT_FALSE(pending.take(signal_bit(SIGINT), &info));
  EXPECT_TRUE(pending.take(~u64{0}, &info));
  EXPECT_EQ(info.number, SIGSEGV);
  EXPECT_TRUE(pending.take(signal_bit(SIGTERM), &info));
  EXPECT_EQ(info.number, SIGTERM);
  pending.discard(signal_bit(SIGHUP));
  EXPECT_EQ(pending.set(), 0u);
}

TEST(SignalActions, what_is_ignored) {
  EXPECT_TRUE(is_ignored({}, SIGURG));
  EXPECT_TRUE(is_ignored({}, SIGTSTP));
  EXPECT_FALSE(is_ignored({}, SIGTERM));
  EXPECT_TRUE(is_ignored({.handler = 1}, SIGTERM));
  EXPECT_FALSE(is_ignored({.handler = 0x1000}, SIGURG));
}

}  // namespace
}  // namespace husk::linux
