// From the first instruction in C++ to the program: the boot list. Everything is wired here and nowhere else.
#include <string.h>
#include <sys/stat.h>

#include "abi/image_format.h"
#include "abi/monitor_device.h"
#include "kernel/boot/panic.h"
#include "kernel/boot/streams.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/devices.h"
#include "kernel/fs/file_systems.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/network.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "kernel/sched/sched.h"
#include "kernel/time/time.h"
#include "platform/platform.h"

namespace husk {
namespace {

constexpr u32 kStartFailed = 126;
constexpr u64 kTscHzGuess = 1'000'000'000;

// What the boot configuration says to the kernel itself; the rest is for linux/.
struct KernelConfiguration {
  u64 tsc_hz = 0, wall_ns = 0, wall_ticks = 0;
  LogLevel log_level = LogLevel::warning;
  std::span<const u8> seed;
};

template <typename T>
T number_at(std::span<const u8> bytes, size_t index) {
  T value{};
  if (bytes.size() >= (index + 1) * sizeof(T)) memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

KernelConfiguration decode(std::span<const u8> bytes) {
  KernelConfiguration result;
  abi::ConfigReader reader(bytes);
  while (auto record = reader.next()) {
    switch (record->tag) {
      case abi::ConfigTag::tsc_frequency: result.tsc_hz = number_at<u64>(record->bytes, 0); break;
      case abi::ConfigTag::wall_clock:
        result.wall_ns = number_at<u64>(record->bytes, 0);
        result.wall_ticks = number_at<u64>(record->bytes, 1);
        break;
      case abi::ConfigTag::random_seed: result.seed = record->bytes; break;
      case abi::ConfigTag::log_level: result.log_level = static_cast<LogLevel>(number_at<u8>(record->bytes, 0)); break;
      default: break;
    }
  }
  return result;
}

std::span<const u8> bytes_at(u64 address, u64 size) { return {reinterpret_cast<const u8*>(address), size}; }

void check(const abi::BootInfo& info) {
  if (info.magic != abi::kBootInfoMagic) HUSK_PANIC("boot info has another magic number");
  if (info.version != abi::kBootInfoVersion) HUSK_PANIC("boot info has another version: nub and kernel do not belong together");
}

void start_clocks(const abi::BootInfo& info, const KernelConfiguration& configuration) {
  u64 hz = configuration.tsc_hz;
  if (hz == 0) log(LogLevel::warning, "the TSC's frequency is not known: clocks assume 1 GHz");
  time::init(hz != 0 ? hz : kTscHzGuess, info.start_tsc, configuration.wall_ns,
             configuration.wall_ticks != 0 ? configuration.wall_ticks : info.start_tsc);
}

void send_crash(std::span<const u8> record) {
  if (!drivers::has_control_console()) return;
  drivers::send_record(abi::RecordType::crash, record, false);
  drivers::drain_output();
}

void send_log_line(std::span<const u8> line) { drivers::send_record(abi::RecordType::log, line, false); }

// --- file systems ----------------------------------------------------------------------------------------------

Result<Ref<vfs::Inode>> make_root(const abi::BootInfo& info, u64 tmpfs_limit) {
  const auto& header = *reinterpret_cast<const abi::ImageHeader*>(info.image_base + abi::kImageHeaderOffset);
  auto upper = TRY(fs::make_tmpfs(tmpfs_limit, S_IFDIR | 0755));
  if (header.rootfs_size == 0) return upper;
  auto lower =
      TRY(fs::make_erofs(bytes_at(info.image_base + header.rootfs_offset, header.rootfs_size), PhysAddr{info.image_physical + header.rootfs_offset}));
  return fs::make_overlay(std::move(lower), std::move(upper));
}

Result<void> mount(vfs::Tree& tree, const char* at, Result<Ref<vfs::Inode>> root, const char* type) {
  auto inode = TRY(std::move(root));
  auto made = tree.make_node(tree.root(), at, S_IFDIR | 0755, 0);
  if (!made.ok() && made.error() != Error(EEXIST)) return made.error();
  return tree.mount(at, std::move(inode), type);
}

// Writable as all of the root is: nothing is mounted there, which would hide what the image has in it.
Result<void> make_shared_directory(vfs::Tree& tree, const char* at) {
  constexpr u32 kMode = S_IFDIR | 01777;
  auto made = tree.make_node(tree.root(), at, kMode, 0);
  if (!made.ok() && made.error() != Error(EEXIST)) return made.error();
  auto path = TRY(tree.resolve(tree.root(), at, vfs::kFollow));
  if (path.inode()->stat().mode == kMode) return {};
  return path.inode()->set_attributes({.mode = &kMode});
}

Result<Owned<vfs::Tree>> mount_all(const abi::BootInfo& info, const StandardFiles& files) {
  u64 limit = info.ram_size / 2;  // as Linux does for tmpfs
  auto root = TRY(make_root(info, limit));
  auto tree = TRY(vfs::Tree::create(std::move(root)));
  TRY(make_shared_directory(*tree, "/tmp"));
  TRY(mount(*tree, "/dev", fs::make_devfs(files.input, files.output, files.error), "devtmpfs"));
  TRY(mount(*tree, "/proc", linux::make_proc(), "proc"));
  TRY(mount(*tree, "/sys", linux::make_sys(), "sysfs"));
  return tree;
}

// --- network -----------------------------------------------------------------------------------------------------

class NetworkDevice final : public linux::LazyNetDevice {
 public:
  Result<packet::NetDevice*> start() override { return drivers::start_network_device(); }
};
constinit NetworkDevice network_device;

// --- the first thread -------------------------------------------------------------------------------------------

Result<void> start_program(const abi::BootInfo& info) {
  auto files = TRY(make_standard_files(linux::configuration()));
  auto tree = TRY(mount_all(info, files));
  linux::start_init(*tree.release(), files.input, files.output, files.error);
  return {};
}

void boot_thread(void* argument) {
  auto result = start_program(*static_cast<const abi::BootInfo*>(argument));
  if (!result.ok()) {
    log(LogLevel::error, "the machine's files cannot be set up: error %d", result.error().code());
    linux::end_machine(kStartFailed, 0);
  }
  sched::exit_current();
}

}  // namespace

extern "C" [[noreturn]] void husk_main(const abi::BootInfo& info) {
  u64 start_tsc = platform::ticks();
  init_panic(info);
  check(info);
  platform::init(info);
  sched::init(reinterpret_cast<abi::VcpuShared*>(info.vcpu_shared));
  auto configuration_bytes = bytes_at(info.config_base, info.config_size);
  KernelConfiguration configuration = decode(configuration_bytes);
  set_log_level(configuration.log_level);
  mem::init_frames(info);
  start_clocks(info, configuration);
  init_random(configuration.seed);
  if (auto devices = drivers::start_devices(info); !devices.ok()) {
    log(LogLevel::error, "no console device can be used: error %d", devices.error().code());
  }
  if (info.machine == abi::MachineKind::pc) sched::poll_by_timer();
  set_crash_sink(send_crash);
  if (drivers::has_control_console()) set_log_sink(send_log_line);
  linux::init(info, start_tsc, linux::decode_configuration(configuration_bytes));
  if (drivers::has_network_device()) linux::init_network(&network_device);
  auto first = sched::Thread::create(boot_thread, const_cast<abi::BootInfo*>(&info));
  if (!first.ok()) HUSK_PANIC("no memory for the first thread");
  sched::start(first.release());
  if (info.monitor_page != 0) reinterpret_cast<abi::MonitorPage*>(info.monitor_page)->tsc_kernel_start = start_tsc;
  sched::run_idle();
}

}  // namespace husk
