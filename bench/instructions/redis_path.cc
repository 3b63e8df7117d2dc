// The kernel's own code (its flags, its link-time optimisation) as a Linux process, for counting instructions with callgrind (count.py):
// a device and 50 clients in place of the monitor, a loop of epoll_wait, read and write in place of redis.
//
//   redis_path CLIENTS PIPELINE BURST BATCHES   BURST: frames that arrive while the vCPU is parked
//
// %gs is set by arch_prctl; nub calls become mmap; platform::halt() is the world: it takes what was sent and brings the next requests.
#include <asm/prctl.h>
#include <linux/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include "abi/boot_config.h"
#include "abi/boot_info.h"
#include "abi/virtio/net.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/virtio/transport.h"
#include "kernel/drivers/virtio_net.h"
#include "kernel/linux/dispatch.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/network.h"
#include "kernel/linux/task.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/traps.h"
#include "platform/nub_calls.h"
#include "platform/platform.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/tcp.h"

// No program runs here: nothing to save. Comes before the archive's.
#include "kernel/sched/program_state_hosted.cc"

namespace husk {

void panic(const char* file, int line, const char* message) {
  fprintf(stderr, "panic %s:%d %s\n", file, line, message);
  _exit(1);
}
void panic_with_registers(const TrapFrame&, const char* message) { panic("", 0, message); }
extern "C" const char kernel_text_start[1] = {}, kernel_text_end[1] = {};

namespace {

using namespace abi::virtio;
constexpr u64 kRam = 256 * kMiB, kArea = 1 * kGiB;
alignas(kPageSize) abi::VcpuShared shared;
abi::BootInfo info;
int ram_file;
u64 now_ticks = 1000;
bool measuring = false, counting = false, in_program = false;
u64 halts = 0, doorbells = 0, timer_arms = 0, platform_work = 0, ticks_read = 0, frames_in = 0, frames_out = 0, pure_acks_out = 0;
u32 clients = 50, pipeline = 16, burst = 10, rounds = 2000;

// --- the device ----------------------------------------------------------------------------------------------------------

class Queue {
 public:
  void attach(drivers::virtio::Virtqueue* queue) { queue_ = queue, size_ = queue->size(); }
  bool next(u16* id) {
    auto* header = at<AvailableHeader>(queue_->available_address());
    if (header->index == seen_) return false;
    *id = reinterpret_cast<u16*>(header + 1)[seen_++ % size_];
    return true;
  }
  bool ready() { return at<AvailableHeader>(queue_->available_address())->index != seen_; }
  Descriptor& descriptor(u16 id) { return at<Descriptor>(queue_->descriptors_address())[id]; }
  void finish(u16 id, u32 length) {
    auto* header = at<UsedHeader>(queue_->used_address());
    reinterpret_cast<UsedElement*>(header + 1)[header->index % size_] = {id, length};
    ++header->index;
  }
  // The monitor that serves a parked vCPU asks for no doorbell.
  void want_no_doorbell() {
    u16 event = static_cast<u16>(seen_ + 0x7fff);
    memcpy(reinterpret_cast<u8*>(at<u8>(queue_->used_address())) + available_event_offset(size_), &event, 2);
  }

 private:
  template <typename T>
  T* at(PhysAddr address) {
    return reinterpret_cast<T*>(mem::direct(address));
  }
  drivers::virtio::Virtqueue* queue_ = nullptr;
  u16 size_ = 1, seen_ = 0;
};
Queue rx, tx;

class Transport final : public drivers::virtio::Transport {
 public:
  DeviceId id() const override { return DeviceId::net; }
  u64 features() const override {
    u64 sum = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
    for (u32 bit : {u32{kNetFeatureChecksum}, u32{kNetFeatureGuestChecksum}, u32{kNetFeatureMtu}, u32{kNetFeatureMac}, u32{kNetFeatureGuestTcp4}, u32{kNetFeatureGuestTcp6},
                    u32{kNetFeatureHostTcp4}, u32{kNetFeatureHostTcp6}, u32{kNetFeatureMergeableBuffers}, u32{kNetFeatureStatus}})
      sum |= feature_bit(bit);
    return sum;
  }
  u16 queue_size_max(u32) const override { return 256; }
  Result<void> start(u64, std::span<drivers::virtio::Virtqueue* const> queues) override {
    rx.attach(queues[kNetReceiveQueue]);
    tx.attach(queues[kNetTransmitQueue]);
    return {};
  }
  Result<void> ask_configuration(std::span<u32> words) override {
    NetConfig config{{2, 0, 0, 0, 0, 2}, kNetLinkUp, 1, 1500};
    memcpy(words.data(), &config, sizeof(config));
    return {};
  }
  Result<void> finish_start() override { return {}; }
  [[gnu::noinline]] void notify(u32) override { ++doorbells; }
  void stop() override {}
};

// --- the clients -----------------------------------------------------------------------------------------------------------

constexpr u8 kOurMac[6] = {2, 0, 0, 0, 0, 1}, kMachineMac[6] = {2, 0, 0, 0, 0, 2};
constexpr u8 kOurIp[4] = {10, 0, 0, 1}, kMachineIp[4] = {10, 0, 0, 2};
constexpr u16 kPort = 6379, kFirstPort = 40000;
constexpr char kRequest[] = "*2\r\n$3\r\nGET\r\n$16\r\nkey:__rand_int__\r\n";
constexpr char kReply[] = "$-1\r\n";

struct Client {
  u32 next = 1000, received = 0, timestamp_echo = 0, reply_left = 0;
  bool established = false;
};
Client client[256];
u32 established = 0, turn = 0;

void deliver(const u8* frame, u32 size, bool tcp) {
  u16 id;
  if (!rx.next(&id)) panic("", 0, "no receive buffer");
  NetHeader header = {};
  if (tcp) header.flags = kNetNeedsChecksum, header.checksum_start = 34, header.checksum_offset = 16;
  header.buffer_count = 1;
  u8* to = mem::direct({rx.descriptor(id).address});
  memcpy(to, &header, sizeof(header));
  memcpy(to + sizeof(header), frame, size);
  rx.finish(id, size + static_cast<u32>(sizeof(header)));
  ++frames_in;
}

void send_segment(u32 index, u8 flags, const u8* payload, u32 size) {
  Client& c = client[index];
  u8 frame[2048] = {};
  bool syn = (flags & 2) != 0;
  u32 options = syn ? 20 : 12, tcp_size = 20 + options + size;
  wire::build_ethernet({frame, 14}, kMachineMac, kOurMac, wire::kEtherTypeIpv4);
  wire::build_ipv4({frame + 14, 20}, {0, 64, wire::kProtocolTcp, 1, wire::kIpv4DontFragment, kOurIp, kMachineIp}, tcp_size);
  auto& header = *reinterpret_cast<wire::TcpHeader*>(frame + 34);
  header = {static_cast<u16>(kFirstPort + index), kPort, c.next, c.received, static_cast<u8>((20 + options) / 4 << 4), flags, syn ? u16{64240} : u16{501}, 0, 0};
  u8* at = frame + 54;
  if (syn) {
    const u8 text[8] = {2, 4, 0x05, 0xb4, 4, 2, 8, 10};
    memcpy(at, text, 8);
    wire::store_be32(at + 8, static_cast<u32>(now_ticks / 1'000'000) + 1);
    wire::store_be32(at + 12, 0);
    const u8 scale[4] = {1, 3, 3, 7};
    memcpy(at + 16, scale, 4);
  } else {
    wire::store_be32(at, 0x0101080a);
    wire::store_be32(at + 4, static_cast<u32>(now_ticks / 1'000'000) + 1);
    wire::store_be32(at + 8, c.timestamp_echo);
  }
  if (size != 0) memcpy(at + options, payload, size);
  c.next += size + (syn ? 1 : 0);
  deliver(frame, 34 + tcp_size, true);
}

void send_request(u32 index) {
  u8 text[2048];
  u32 size = 0;
  for (u32 i = 0; i < pipeline; ++i, size += sizeof(kRequest) - 1) memcpy(text + size, kRequest, sizeof(kRequest) - 1);
  client[index].reply_left = pipeline * (sizeof(kReply) - 1);
  send_segment(index, 0x18, text, size);
}

void take_frame(const u8* frame, u32 size) {
  u16 type = static_cast<u16>(frame[12] << 8 | frame[13]);
  if (type == wire::kEtherTypeArp && frame[21] == 1 && memcmp(frame + 38, kOurIp, 4) == 0) {
    u8 reply[42];
    memcpy(reply, frame, 42);
    memcpy(reply, kMachineMac, 6), memcpy(reply + 6, kOurMac, 6);
    reply[21] = 2;
    memcpy(reply + 22, kOurMac, 6), memcpy(reply + 28, kOurIp, 4);
    memcpy(reply + 32, kMachineMac, 6), memcpy(reply + 38, kMachineIp, 4);
    deliver(reply, 42, false);
  }
  if (type != wire::kEtherTypeIpv4 || frame[23] != wire::kProtocolTcp) return;
  auto& header = *reinterpret_cast<const wire::TcpHeader*>(frame + 34);
  u32 index = u32{header.destination_port} - kFirstPort;
  Client& c = client[index];
  u32 header_size = (header.size_and_reserved >> 4) * 4u, payload = size - 34 - header_size;
  if ((header.flags & 4) != 0) panic("", 0, "reset");
  const u8* options = frame + 54;
  for (u32 at = 0; at + 10 <= header_size - 20;) {
    if (options[at] == 1) {
      ++at;
    } else if (options[at] == 8) {
      c.timestamp_echo = wire::load_be32(options + at + 2);
      break;
    } else {
      at += options[at + 1];
    }
  }
  ++frames_out;
  if (payload == 0 && (header.flags & 2) == 0) ++pure_acks_out;
  if (!c.established && (header.flags & 2) != 0) {
    c.received = u32{header.sequence} + 1;
    c.established = true;
    ++established;
    return send_segment(index, 0x10, nullptr, 0);
  }
  if ((header.flags & 2) != 0) return;
  if (header.sequence != c.received) panic("", 0, "out of order");
  c.received += payload;
  c.reply_left -= payload;
}

void take_sent() {
  for (u16 id; tx.next(&id);) {
    u8 frame[4096];
    u32 size = 0;
    for (u16 at = id;;) {
      Descriptor& part = tx.descriptor(at);
      memcpy(frame + size, mem::direct({part.address}), part.length);
      size += part.length;
      if ((part.flags & kDescriptorNext) == 0) break;
      at = part.next;
    }
    tx.finish(id, 0);
    take_frame(frame + sizeof(NetHeader), size - static_cast<u32>(sizeof(NetHeader)));
  }
  tx.want_no_doorbell();
  rx.want_no_doorbell();
}

[[gnu::noinline]] void world() {
  take_sent();
  now_ticks += 20'000;
  if (!in_program) return;
  if (established < clients) {
    client[established].next = 1000;  // again if it waits for ARP
    return send_segment(established, 2, nullptr, 0);
  }
  for (u32 i = 0; measuring && i < burst && rx.ready(); ++i, turn = (turn + 1) % clients) {
    if (client[turn].reply_left != 0) panic("", 0, "no reply yet");
    send_request(turn);
  }
}

}  // namespace

// --- the platform ------------------------------------------------------------------------------------------------------------

namespace platform {
u64 ticks() {
  ++ticks_read;
  return now_ticks += 25;
}
void arm_timer(u64 deadline) {
  ++timer_arms;
  static u64 known = 0;
  if (deadline != 0 && (known == 0 || deadline < known || known <= now_ticks)) known = deadline, ++platform_work;
}
void before_program() {}
void acknowledge_event() { shared.interrupt_pending = 0; }
bool halting_serves() { return true; }
[[gnu::noinline]] void halt() {
  if (counting) CALLGRIND_TOGGLE_COLLECT;
  ++halts;
  world();
  if (counting) CALLGRIND_TOGGLE_COLLECT;
}
void power_off(u32 status) { _exit(static_cast<int>(status)); }
void debug_write(const char* text, size_t length) { (void)!write(2, text, length); }
std::span<abi::NubCall> nub_calls() { return shared.calls; }
void expect_use(PhysAddr, u64) {}
Result<void> run_nub_calls(u32 count) {
  for (u32 i = 0; i < count; ++i) {
    const abi::NubCall& call = shared.calls[i];
    if (call.op != abi::NubOp::map) continue;
    if (mmap(reinterpret_cast<void*>(call.va), call.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ram_file, static_cast<off_t>(call.pa)) == MAP_FAILED)
      HUSK_PANIC("map");
  }
  return {};
}
}  // namespace platform

namespace drivers {
void set_record_handler(RecordHandler) {}
}  // namespace drivers
namespace linux {
Result<void> init_vdso(const abi::BootInfo&) { return {}; }
}  // namespace linux

// --- the program ---------------------------------------------------------------------------------------------------------------

namespace {

class Device final : public linux::LazyNetDevice {
 public:
  Result<packet::NetDevice*> start() override {
    auto network = TRY(drivers::VirtioNet::create(Owned<drivers::virtio::Transport>(new (std::nothrow) Transport())));
    sleep_.network = network.release();
    sched::register_poller(&sleep_);
    return sleep_.network;
  }

 private:
  struct Sleep final : sched::Poller {
    bool poll() override { return false; }
    bool prepare_to_sleep() override { return network->prepare_to_sleep(); }
    drivers::VirtioNet* network = nullptr;
  };
  Sleep sleep_;
};

template <typename... A>
[[gnu::noinline]] i64 call(u64 number, A... argument) {
  const u64 all[6] = {(u64)argument...};
  i64 result = linux::syscall_table()[number](all[0], all[1], all[2], all[3], all[4], all[5]);
  if (shared.interrupt_pending || shared.kernel_work[0]) (void)sched::handle_work();
  return result;
}

struct [[gnu::packed]] Event {
  u32 events;
  u64 data;
};

[[noreturn, gnu::noinline]] void program(void*) {
  in_program = true;
  static Event events[128];
  static char text[16384], reply[16 * sizeof(kReply)];
  for (u32 i = 0; i < pipeline; ++i) memcpy(reply + i * (sizeof(kReply) - 1), kReply, sizeof(kReply) - 1);
  const u64 reply_size = pipeline * (sizeof(kReply) - 1);
  i64 listener = call(SYS_socket, 2, 1, 0);
  sockaddr_in address = {};
  address.sin_family = 2;
  address.sin_port = __builtin_bswap16(kPort);
  if (call(SYS_bind, listener, &address, sizeof(address)) != 0 || call(SYS_listen, listener, 511) != 0) panic("", 0, "listen");
  i64 epoll = call(SYS_epoll_create1, 0);
  for (u32 i = 0; i < clients; ++i) {
    i64 fd = call(SYS_accept4, listener, 0, 0, 04000);
    if (fd < 0) panic("", 0, "accept");
    int one = 1, idle = 300;
    call(SYS_setsockopt, fd, 6, 1, &one, 4);
    call(SYS_setsockopt, fd, 1, 9, &one, 4);
    call(SYS_setsockopt, fd, 6, 4, &idle, 4);
    Event event{1, (u64)fd};
    if (call(SYS_epoll_ctl, epoll, 1, fd, &event) != 0) panic("", 0, "epoll_ctl");
  }
  measuring = true;
  u64 batches = 0, calls = 0, warm_up = u64{clients} * 40, wanted = warm_up + rounds, warm = 0;
  for (u64 done = 0; done < wanted;) {
    if (done >= warm_up && warm == 0) {
      warm = done;
      halts = doorbells = timer_arms = platform_work = ticks_read = frames_in = frames_out = pure_acks_out = calls = 0;
      counting = true;
      CALLGRIND_TOGGLE_COLLECT;
    }
    i64 count = call(SYS_epoll_wait, epoll, events, 128, 50);
    ++calls;
    if (count <= 0) continue;
    for (i64 i = 0; i < count; ++i) {
      i64 got = call(SYS_read, events[i].data, text, sizeof(text));
      if (got != (i64)(pipeline * (sizeof(kRequest) - 1))) panic("", static_cast<int>(got), "read");
    }
    for (i64 i = 0; i < count; ++i)
      if (call(SYS_write, events[i].data, reply, reply_size) != (i64)reply_size) panic("", 0, "write");
    done += (u64)count;
    calls += 2 * (u64)count;
    batches = done - warm;
  }
  CALLGRIND_TOGGLE_COLLECT;
  fprintf(stderr, "batches %lu syscalls %lu halts %lu doorbells %lu timer_arms %lu platform_work %lu ticks %lu frames_in %lu frames_out %lu pure_acks %lu\n", batches, calls,
          halts, doorbells, timer_arms, platform_work, ticks_read, frames_in, frames_out, pure_acks_out);
  _exit(0);
}

struct Bytes {
  void push_back(u8 byte) { data[size++] = byte; }
  u8 data[256];
  size_t size = 0;
};

}  // namespace
}  // namespace husk

int main(int argc, char** argv) {
  using namespace husk;
  if (argc > 4) clients = atoi(argv[1]), pipeline = atoi(argv[2]), burst = atoi(argv[3]), rounds = atoi(argv[4]);
  ram_file = memfd_create("ram", 0);
  if (ftruncate(ram_file, kRam) != 0) return 1;
  auto reserve = [](u64 size) {
    u64 at = (u64)mmap(nullptr, size + kHugePageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return align_up(at, kHugePageSize);
  };
  info.machine = abi::MachineKind::monitor;
  info.direct_base = reserve(kRam);
  info.direct_size = info.ram_size = kRam;
  mmap((void*)info.direct_base, kRam, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ram_file, 0);
  info.kernel_area_start = reserve(kArea);
  info.kernel_area_end = info.kernel_area_start + kArea;
  info.vcpu_shared = (u64)&shared;
  info.ram_is_zero = 1;
  info.free_range_count = 1;
  info.free_ranges[0] = {kHugePageSize, kRam - kHugePageSize};
  syscall(SYS_arch_prctl, ARCH_SET_GS, &shared);
  sched::init(&shared);
  mem::init_frames(info);
  time::init(1'000'000'000, 0, 0, 0);
  static u8 seed[32] = {1, 2, 3};
  init_random(seed);
  static Bytes bytes;
  abi::NetworkAddress address{4, 24, {}, {10, 0, 0, 2}};
  u8 mode = 1;
  abi::append_config(bytes, abi::ConfigTag::network, {reinterpret_cast<const char*>(&mode), 1});
  abi::append_config(bytes, abi::ConfigTag::network_address, {reinterpret_cast<const char*>(&address), sizeof(address)});
  linux::init(info, 0, linux::decode_configuration({bytes.data, bytes.size}));
  static Device device;
  linux::init_network(&device);
  auto process = make_ref<linux::Process>().release();
  process->files = make_ref<linux::FdTable>().release();
  process->actions = make_ref<linux::SignalActions>().release();
  process->file_context = make_ref<linux::FileContext>().release();
  auto task = linux::create_task(process, program, nullptr).release();
  sched::start(task->thread);
  sched::run_idle();
}
