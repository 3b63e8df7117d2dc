// See network.h. The stack is polled when the machine is idle or has had an event (sched::Poller), and by each call on a socket.
//
// Its deadlines move with every segment, mostly away: the timer stays armed for the earliest one asked for, and looks again when it fires,
// because arming it can cost a doorbell.
#undef linux
#include "kernel/linux/network.h"

#include <linux/fcntl.h>

#include <algorithm>

#include "kernel/linux/inet_stream.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/machine_name.h"
#include "kernel/linux/network_settings.h"
#include "kernel/linux/task.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/vfs/file.h"

namespace husk::linux {
namespace {

constexpr u64 kMillisecond = 1'000'000;
constexpr u64 kConfigurationWaitNs = 10'000 * kMillisecond, kNamesWaitNs = 3'000 * kMillisecond, kLookAgainNs = 5 * kMillisecond;
constexpr u64 kDrainNs = 3'000 * kMillisecond;

class Network final : public net::Environment, public sched::Poller {
 public:
  Result<void> start(LazyNetDevice* device);
  bool poll() override;
  bool prepare_to_sleep() override;
  u64 now_ns() override { return time::monotonic_ns(); }
  void random(void* to, size_t size) override { random_bytes(to, size); }
  void names_changed() override { names_changed_ = true; }
  Result<void> wait_configured(u64 at_most_ns);
  void tell_names();
  void drain();
  Owned<net::Stack> stack;

 private:
  struct Deadline : time::Timer {
    Deadline() : Timer(&expired) {}
    static void expired(time::Timer&) { network_run(); }
  };
  void start_device(LazyNetDevice& lazy);
  Result<void> configure(packet::NetDevice& device, const NetworkSettings& settings);
  Deadline deadline_;
  bool names_changed_ = false, gave_up_ = false, running_ = false;
};

struct Machine {
  LazyNetDevice* device = nullptr;
  Network* network = nullptr;  // lives for ever once it is there
  bool starting = false;
};
constinit Machine machine;

// --- files of /etc --------------------------------------------------------------------------------------------------------------

// Whatever the image has there goes: a link would lead to where nothing is.
Result<void> replace_file(std::string_view path, std::string_view text) {
  vfs::Tree& files = tree();
  auto removed = files.unlink(files.root(), path, false);
  if (!removed.ok() && removed.error() != Error(ENOENT)) return removed;
  auto file = TRY(files.open(files.root(), path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(text.data(), text.size());
  vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
  (void)TRY(file->write(buffer, nullptr));
  return {};
}

Result<void> write_names(const NetworkSettings& settings, net::Stack* stack) {
  net::IpAddress servers[NetworkSettings::kNamesMax];
  u32 count = settings.name_server_count;
  std::copy_n(settings.name_servers, count, servers);
  std::string_view domain = settings.search_domain;
  if (count == 0 && stack != nullptr) count = static_cast<u32>(std::min<size_t>(stack->name_servers(servers), NetworkSettings::kNamesMax));
  if (domain.empty() && stack != nullptr) domain = stack->search_domain();
  String text;
  TRY(write_resolv_conf(text, {servers, count}, domain));
  return replace_file("/etc/resolv.conf", text);
}

Result<void> write_files(const NetworkSettings& settings) {
  std::string_view name = get_host_name();
  auto directory = tree().make_node(tree().root(), "/etc", vfs::kDirectoryType | 0755, 0);
  if (!directory.ok() && directory.error() != Error(EEXIST)) return directory.error();
  TRY(write_names(settings, nullptr));
  String hosts, host_name;
  TRY(write_hosts(hosts, settings, name, settings.address_count > 0 ? &settings.addresses[0].address : nullptr));
  TRY(replace_file("/etc/hosts", hosts));
  TRY(host_name.append(name));
  TRY(host_name.append("\n"));
  return replace_file("/etc/hostname", host_name);
}

// --- starting -------------------------------------------------------------------------------------------------------------------

Result<void> Network::configure(packet::NetDevice& device, const NetworkSettings& settings) {
  using net::Configure;
  Configure how = settings.mode == abi::NetworkMode::automatic ? Configure::automatically : Configure::manually;
  u32 index = TRY(stack->add_interface(device, "eth0", how, get_host_name()));
  for (u32 i = 0; i < settings.address_count; ++i) TRY(stack->add_address(index, settings.addresses[i].address, settings.addresses[i].prefix_bits));
  for (const net::IpAddress& gateway : settings.gateways) {
    if (gateway.is_any()) continue;
    net::Route route;
    route.network = gateway.is_v4() ? net::IpAddress::v4(0, 0, 0, 0) : net::IpAddress{};
    route.has_gateway = true;
    route.gateway = gateway;
    route.interface = index;
    TRY(stack->add_route(route));
  }
  return {};
}

void Network::start_device(LazyNetDevice& lazy) {
  NetworkSettings settings = decode_network(configuration().bytes);
  if (settings.mode == abi::NetworkMode::none) return;
  Result<packet::NetDevice*> device = lazy.start();
  Result<void> result = device.ok() ? configure(**device, settings) : device.error();
  if (!result.ok()) log(LogLevel::error, "the network device cannot be used: error %d; the program has the loopback only", result.error().code());
}

Result<void> Network::start(LazyNetDevice* device) {
  stack = TRY(net::Stack::create(*this, net::Stack::Limits::for_memory(mem::memory_statistics().total)));
  if (device != nullptr) start_device(*device);
  sched::register_poller(this);
  return {};
}

// --- running --------------------------------------------------------------------------------------------------------------------

bool Network::poll() {
  if (running_) return false;  // a copy to the program's memory may let others run in the middle of it
  running_ = true;
  bool moved = stack->run();
  running_ = false;
  u64 due = stack->next_deadline_ns();
  if (due != time::kForever && (!deadline_.armed() || due < deadline_.deadline_ns())) deadline_.arm(due);
  return moved;
}

bool Network::prepare_to_sleep() { return poll(); }

Result<void> Network::wait_configured(u64 at_most_ns) {
  u64 end = time::monotonic_ns() + at_most_ns;
  sched::WaitQueue nobody;  // looks again now and then: this happens once
  while (!stack->configured() && !gave_up_) {
    u64 now = time::monotonic_ns();
    if (now >= end) {
      gave_up_ = true;
      log(LogLevel::warning, "no address was given to this machine within %u s", static_cast<u32>(at_most_ns / time::kNsPerSecond));
      break;
    }
    sched::expect_events();
    if (nobody.wait(std::min(end, now + kLookAgainNs)) == sched::Wake::interrupted) return Error(EINTR);
    poll();
  }
  return {};
}

// Names learnt from the network. Where a thread may block: files are written.
void Network::tell_names() {
  if (!names_changed_) return;
  names_changed_ = false;
  if (auto written = write_names(decode_network(configuration().bytes), stack.get()); !written.ok()) {
    log(LogLevel::warning, "/etc/resolv.conf cannot be written: error %d", written.error().code());
  }
}

// What the program sent before it ended still goes out, as it would on Linux. Nobody else runs any more: this thread polls.
void Network::drain() {
  close_all_streams();
  u64 end = time::monotonic_ns() + kDrainNs;
  do {
    poll();
  } while (streams_have_unsent_data(stack->tcp()) && time::monotonic_ns() < end);
}

}  // namespace

void init_network(LazyNetDevice* device) { machine.device = device; }

void write_network_files() {
  NetworkSettings settings = decode_network(configuration().bytes);
  if (settings.mode == abi::NetworkMode::none) return;
  if (auto written = write_files(settings); !written.ok()) {
    log(LogLevel::warning, "the names of the network cannot be written to /etc: error %d", written.error().code());
  }
  // Programs read resolv.conf before they make a socket: what only the network knows is asked for now.
  if (settings.mode != abi::NetworkMode::automatic || settings.name_server_count > 0 || !network().ok()) return;
  (void)machine.network->wait_configured(kNamesWaitNs).ok();
  machine.network->tell_names();
}

Result<net::Stack*> network() {
  while (machine.starting) sched::yield();
  if (machine.network == nullptr) {
    auto made = TRY(make_owned<Network>());
    machine.starting = true;
    Result<void> started = made->start(machine.device);
    machine.starting = false;
    TRY(std::move(started));
    machine.network = made.release();
  }
  machine.network->tell_names();
  return machine.network->stack.get();
}

void network_run() {
  // On the loopback an answer comes at once; whoever sends sees it, as on Linux.
  constexpr u32 kRounds = 8;
  if (machine.network == nullptr) return;
  for (u32 i = 0; i < kRounds && machine.network->poll(); ++i) {}
}

void network_run_if_due() {
  if (machine.network != nullptr && machine.network->stack->tcp().next_deadline_ns() == 0) network_run();
}

void network_finish() {
  if (machine.network != nullptr) machine.network->drain();
}

Result<void> network_wait_configured(const net::IpAddress& destination) {
  if (machine.network == nullptr || destination.is_loopback()) return {};
  return machine.network->wait_configured(kConfigurationWaitNs);
}

}  // namespace husk::linux
