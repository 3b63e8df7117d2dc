// The devices of one machine and the thread that serves them: three consoles, an entropy device and perhaps a network device behind
// virtio-mmio windows, in this order.
//
// Doorbells of all devices are one eventfd: after it, and after any stream became ready, every device looks at its queues, which costs
// a few loads each. Used by vmm/monitor.cc; the virtual CPU is only known as "tell the guest".
#pragma once

#include <condition_variable>
#include <memory>
#include <optional>
#include <thread>

#include "abi/boot_info.h"
#include "abi/monitor_device.h"
#include "abi/virtio/console.h"
#include "host/event_loop.h"
#include "vmm/devices/console.h"
#include "vmm/devices/control_channel.h"
#include "vmm/devices/mmio_transport.h"
#include "vmm/devices/net.h"
#include "vmm/devices/rng.h"
#include "vmm/monitor.h"
#include "vmm/monitor_parked.h"
#include "vmm/net/pcap.h"

namespace husk::vmm {

class MonitorDevices {
 public:
  struct Streams {
    int in, out, error;
  };
  struct Hooks {
    std::function<void()> notify_guest;
    std::function<void()> frames_arrived;                  // for the guest: less urgent while it runs, which it does not like to be interrupted at
    std::function<void(const std::string&)> guest_failed;  // once or more, I/O or vCPU thread
    ControlReceiver::Handler record;
    ControlReceiver::Ready ready_for_records = [] { return true; };
    std::function<void(std::span<const iovec>)> input_arrived;
    std::function<void(u32 which, int error)> output_closed;  // 1 stdout, 2 stderr; I/O or vCPU thread
    std::function<bool()> spare_time;  // I/O thread, after each round: may do a little of what can wait; true: there is more of it
  };
  MonitorDevices(const GuestMemory& memory, const Streams& streams, const std::optional<NetworkDevice>& network, Hooks hooks);
  ~MonitorDevices();

  u32 count() const { return static_cast<u32>(devices_.size()); }
  std::vector<abi::DeviceWindow> windows() const;
  // One per device: an address to which a 4-byte store of any value is a doorbell.
  std::vector<u64> doorbell_addresses() const;
  bool is_network(u64 offset) const { return network_ != nullptr && offset / abi::kVirtioMmioStride == count() - 1; }
  NetDevice* network() { return network_; }
  std::string capture_loss() const { return pcap_ ? describe_capture_loss(pcap_->error(), pcap_->dropped()) : ""; }
  ParkedService* parked_service() { return parked_service_ ? &*parked_service_ : nullptr; }
  int doorbell_fd() const { return doorbell_.get(); }

  // vCPU thread: an access to a window; the offset counts from kVirtioMmioAddress.
  u64 load(u64 offset, u32 size);
  void store(u64 offset, u32 size, u64 value);

  host::EventLoop& loop() { return loop_; }
  ControlSender& control() { return control_; }
  u64 doorbells() const { return doorbells_; }
  void start();
  void stop();
  // vCPU thread: returns when everything that the guest sent has been written, or after abandon().
  void drain();
  void abandon();

 private:
  bool process_all();
  bool is_drained();
  void watch(HostStream& stream, Device& device, u32 events);
  void add_network(const NetworkDevice& network);

  Hooks hooks_;
  host::EventLoop loop_;
  host::FileDescriptor doorbell_;
  HostStream in_, out_, error_;
  ControlReceiver receiver_;
  ControlSender control_;
  std::optional<net::PcapWriter> pcap_;
  std::vector<std::unique_ptr<Device>> devices_;
  NetDevice* network_ = nullptr;                 // one of them
  std::optional<ParkedService> parked_service_;  // of a TAP
  std::vector<std::unique_ptr<MmioTransport>> transports_;
  std::thread thread_;
  std::mutex drain_mutex_;
  std::condition_variable drained_;
  std::atomic<bool> draining_{false}, abandoned_{false};
  u64 doorbells_ = 0;
};

}  // namespace husk::vmm
