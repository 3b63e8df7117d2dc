// The vCPU's thread works the network device itself while the guest has nothing to do.
//
// A guest that polls and an I/O thread that polls need two CPUs, and a third for whoever talks to the machine; where there are fewer, each waits for another.
// So a guest that parks has its frames moved here, on the thread that would sleep, and runs again as soon as there is one for it. Under load that is one exit
// for many frames, and no other thread is woken. While it goes on ("serving") the I/O thread does not watch the descriptor, no doorbell is asked for, and
// the guest is told that polling is in vain. It ends when nothing came for kPatience: then the vCPU sleeps, and the I/O thread watches. Or when the guest
// has not parked for kAbsence: the I/O thread takes over, until it parks again. A guest that sends much does better with a thread that copies it out
// meanwhile: then nothing is served for kBulk.
//
// To write what the guest answers to several frames takes a good part of the guest's own time, because this host's TCP comes along: the I/O thread does it
// if it finds the time (MonitorDevices::start() lets it wait for a CPU without work). It is given one frame more each round, and half as many as soon as
// it has not begun with all of them when the guest parks again: the vCPU's thread writes the others itself. Without a CPU to spare, it soon writes all.
//
// Any thread may ask serving(); all other state belongs to the device's mutex. Only for a TAP: writing to it raises no SIGPIPE.
#pragma once

#include <atomic>
#include <functional>

#include "host/event_loop.h"
#include "host/file_descriptor.h"
#include "vmm/devices/net.h"

namespace husk::vmm {

class ParkedService {
 public:
  static constexpr u64 kPatienceNs = 50 * 1000;
  static constexpr u64 kAbsenceNs = 1000 * 1000;  // also how long a frame may wait for a guest that sends and computes on
  static constexpr u64 kBulkBytes = 128 * kKiB, kBulkNs = 10 * 1000 * 1000;
  static constexpr u64 kMuchReceived = 32 * kKiB;  // in one round
  static constexpr u64 kManyFrames = 4;            // in one round; fewer answers are not worth waking the other thread

  // `watched` is the device's descriptor in the loop, with these events.
  ParkedService(NetDevice& device, host::EventLoop& loop, int watched, u32 events);

  // vCPU thread. True: the guest has something to look at. False: it may sleep. Never longer than kPatience without frames, nor beyond the deadline
  // (TSC ticks, 0: none); `is_wanted`: the vCPU has something else to do.
  bool serve(u64 deadline_tsc, const std::function<bool()>& is_wanted);
  // The I/O thread has no part in it now, but for write_handed(). Changes with the device's mutex held.
  bool serving() const { return serving_; }
  // The vCPU's thread works the device at this moment: it needs not be told.
  bool at_work() const { return at_work_; }
  // Is called with each change of serving(), before the guest runs.
  std::function<void(bool serving)> tell_guest = [](bool) {};

 private:
  void set_serving(bool serving);
  bool has_news();
  bool work();
  void on_timer();

  NetDevice& device_;
  host::EventLoop& loop_;
  const int watched_;
  const u32 events_;
  host::FileDescriptor timer_;
  std::atomic<bool> serving_ = false;
  bool at_work_ = false, timer_runs_ = false;
  bool received_much_ = false;  // in the round before
  u32 share_ = 0;               // most frames that the I/O thread is given at once
  u64 rounds_ = 0, rounds_before_ = 0;
  u64 bulk_until_ns_ = 0;  // vCPU thread
  u64 known_news_ = 0;     // the guest was woken for it
};

}  // namespace husk::vmm
