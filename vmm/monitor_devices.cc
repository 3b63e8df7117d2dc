// See vmm/monitor_devices.h.
#include "vmm/monitor_devices.h"

#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/net/tap.h"

namespace husk::vmm {

namespace virtio = abi::virtio;

MonitorDevices::MonitorDevices(const GuestMemory& memory, const Streams& streams, const std::optional<NetworkDevice>& network, Hooks hooks)
    : hooks_(std::move(hooks)),
      doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      in_(streams.in, HostStream::Direction::in),
      out_(streams.out, HostStream::Direction::out),
      error_(streams.error, HostStream::Direction::out),
      receiver_([this](abi::RecordType type, std::span<const u8> bytes) { hooks_.record(type, bytes); }, hooks_.ready_for_records),
      control_([this] { loop_.wake(); }) {
  auto closed = [this](u32 which) {
    return [this, which](int error) {
      control_.send_output_closed(which, error);
      hooks_.output_closed(which, error);
    };
  };
  auto ended = [this](u64 bytes) { control_.send_value(abi::RecordType::input_end, bytes); };
  static_assert(virtio::kConsoleStandard == 0 && virtio::kConsoleError == 1 && virtio::kConsoleControl == 2);
  devices_.push_back(std::make_unique<ConsoleDevice>("console 0", &in_, &out_, ConsoleDevice::Events{ended, closed(1), hooks_.input_arrived}));
  devices_.push_back(std::make_unique<ConsoleDevice>("console 1", nullptr, &error_, ConsoleDevice::Events{[](u64) {}, closed(2), [](auto) {}}));
  devices_.push_back(std::make_unique<ConsoleDevice>("control console", &control_, &receiver_, ConsoleDevice::Events{}));
  devices_.push_back(std::make_unique<RngDevice>());
  for (auto& device : devices_) device->notify_guest = hooks_.notify_guest;
  if (network) add_network(*network);
  for (auto& device : devices_) {
    transports_.push_back(std::make_unique<MmioTransport>(*device, memory, [this] {
      u64 one = 1;
      (void)!write(doorbell_.get(), &one, sizeof(one));
    }));
  }
  loop_.add(doorbell_.get(), EPOLLIN, [this](u32) {
    u64 count;
    if (read(doorbell_.get(), &count, sizeof(count)) == sizeof(count)) doorbells_ += count;
  });
  watch(in_, *devices_[virtio::kConsoleStandard], EPOLLIN);
  watch(out_, *devices_[virtio::kConsoleStandard], EPOLLOUT);
  watch(error_, *devices_[virtio::kConsoleError], EPOLLOUT);
  loop_.set_after_round([this] {
    bool again = process_all();
    return hooks_.spare_time() || again;
  });
}

MonitorDevices::~MonitorDevices() { stop(); }

void MonitorDevices::watch(HostStream& stream, Device& device, u32 events) {
  if (stream.fd() < 0) return;
  // The same descriptor may serve as output and error: epoll takes a descriptor once, a duplicate is another.
  int fd = stream.watch_fd();
  bool watched = loop_.add(fd, events | EPOLLET, [&stream, &device](u32) {
    std::lock_guard lock(device.mutex());
    stream.set_ready();
  });
  if (!watched) stream.set_always_ready();
}

void MonitorDevices::add_network(const NetworkDevice& network) {
  NetDevice::Link link;
  link.fd = network.fd;
  link.vnet_header = network.vnet_header;
  memcpy(link.mac, network.mac, sizeof(link.mac));
  link.mtu = network.mtu;
  if (network.vnet_header) link.accepted = [fd = network.fd](u64 features) { net::set_offloads(fd, features); };
  if (network.pcap_fd >= 0) {
    pcap_.emplace(network.pcap_fd);
    link.capture = [this](std::span<const iovec> frame) { pcap_->add(frame); };
  }
  auto device = std::make_unique<NetDevice>(std::move(link));
  device->notify_guest = [this] {
    if (!parked_service_ || !parked_service_->at_work()) hooks_.frames_arrived();
  };
  network_ = device.get();
  devices_.push_back(std::move(device));
  constexpr u32 kEvents = EPOLLIN | EPOLLOUT | EPOLLET;
  loop_.add(network.fd, kEvents, [this](u32 events) {
    std::lock_guard lock(network_->mutex());
    network_->set_ready((events & ~u32{EPOLLOUT}) != 0, (events & ~u32{EPOLLIN}) != 0);
  });
  if (network.vnet_header) parked_service_.emplace(*network_, loop_, network.fd, kEvents);
}

std::vector<abi::DeviceWindow> MonitorDevices::windows() const {
  std::vector<abi::DeviceWindow> windows(1 + count());
  windows[0].kind = abi::WindowKind::monitor_device;
  windows[0].physical_address = abi::kMonitorDeviceAddress;
  for (u32 i = 0; i < count(); ++i) {
    windows[1 + i].kind = abi::WindowKind::virtio_mmio;
    windows[1 + i].physical_address = abi::kVirtioMmioAddress + i * abi::kVirtioMmioStride;
  }
  for (auto& window : windows) {
    window.interrupt = 0;
    window.size = kPageSize;
    window.virtual_address = 0;
  }
  return windows;
}

std::vector<u64> MonitorDevices::doorbell_addresses() const {
  std::vector<u64> addresses;
  for (u32 i = 0; i < count(); ++i) {
    addresses.push_back(abi::kVirtioMmioAddress + i * abi::kVirtioMmioStride + virtio::kMmioQueueNotify);
  }
  return addresses;
}

u64 MonitorDevices::load(u64 offset, u32 size) {
  u64 index = offset / abi::kVirtioMmioStride;
  return index < transports_.size() ? transports_[index]->load(offset % abi::kVirtioMmioStride, size) : 0;
}

void MonitorDevices::store(u64 offset, u32 size, u64 value) {
  u64 index = offset / abi::kVirtioMmioStride;
  if (index < transports_.size()) transports_[index]->store(offset % abi::kVirtioMmioStride, size, value);
}

bool MonitorDevices::process_all() {
  bool again = false, draining = draining_.load(std::memory_order_acquire);
  if (network_ != nullptr) network_->write_handed();
  for (auto& device : devices_) {
    // Its mutex is the vCPU's thread's. When that ends serving, it says so to the loop.
    if (!draining && device.get() == network_ && parked_service_ && parked_service_->serving()) continue;
    std::lock_guard lock(device->mutex());
    again |= device->process();
    std::string error = device->error();
    if (!error.empty()) hooks_.guest_failed(error);
  }
  if (pcap_ && !again) {
    std::lock_guard lock(network_->mutex());  // drain() may have the other thread at work with frames
    pcap_->flush();
  }
  if (draining_.load(std::memory_order_acquire)) {
    std::lock_guard lock(drain_mutex_);
    drained_.notify_all();
  }
  return again;
}

bool MonitorDevices::is_drained() {
  for (auto& device : devices_) {
    std::lock_guard lock(device->mutex());
    if (device->driver_ok && device->error().empty() && !device->is_drained()) return false;
  }
  return true;
}

void MonitorDevices::start() {
  thread_ = std::thread([this] {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    // Woken, it waits for a CPU without work: whoever talks to the machine is not to be interrupted for the machine's sake.
    sched_param none{};
    sched_setscheduler(0, SCHED_BATCH, &none);
    loop_.run();
  });
}

void MonitorDevices::stop() {
  if (!thread_.joinable()) return;
  loop_.stop();
  thread_.join();
}

void MonitorDevices::drain() {
  draining_.store(true, std::memory_order_release);
  process_all();  // nearly always enough, without waking the other thread
  if (is_drained()) return;
  loop_.wake();
  std::unique_lock lock(drain_mutex_);
  while (!abandoned_.load() && !is_drained()) drained_.wait_for(lock, std::chrono::milliseconds(100));
}

void MonitorDevices::abandon() {
  abandoned_.store(true);
  drained_.notify_all();  // without the mutex: who calls may have a device's, which drain() waits for with it. A wait that misses this is short
}

}  // namespace husk::vmm
