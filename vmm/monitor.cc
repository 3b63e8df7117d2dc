// See vmm/monitor.h.
#include "vmm/monitor.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "abi/boot_config.h"
#include "abi/monitor_device.h"
#include "vmm/back_ahead.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/loader/loader.h"
#include "vmm/loader/table_editor.h"
#include "vmm/monitor_devices.h"
#include "vmm/monitor_error.h"
#include "vmm/monitor_wake.h"

namespace husk::vmm {
namespace {

constexpr u64 kSecond = 1000 * 1000 * 1000;
constexpr int kStatusPowerCut = 128 + SIGKILL;
constexpr u32 kFewDoorbells = 64, kNetworkDoorbellWeight = 4;

u64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * kSecond + static_cast<u64>(time.tv_nsec);
}

void arm(int timer_fd, u64 delay_ns) {
  itimerspec time{};
  time.it_value.tv_sec = static_cast<time_t>(delay_ns / kSecond);
  time.it_value.tv_nsec = static_cast<long>(delay_ns % kSecond);
  timerfd_settime(timer_fd, 0, &time, nullptr);
}

void random_bytes(std::span<u8> bytes) {
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) throw_errno("getting random numbers");
}

template <typename T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

}  // namespace

void append_host_config(std::vector<u8>& config, int stdin_fd, int stdout_fd, int stderr_fd, u64 tsc_frequency, u64 tsc_now) {
  u8 seed[32];
  random_bytes(seed);
  abi::append_config(config, abi::ConfigTag::random_seed, bytes_of(seed));
  timespec wall;
  clock_gettime(CLOCK_REALTIME, &wall);
  u64 clock[2] = {static_cast<u64>(wall.tv_sec) * kSecond + static_cast<u64>(wall.tv_nsec), tsc_now};
  abi::append_config(config, abi::ConfigTag::wall_clock, bytes_of(clock));
  abi::append_config(config, abi::ConfigTag::tsc_frequency, bytes_of(tsc_frequency));
  struct {
    u8 is_terminal[3], padding;
    u16 rows, columns;
  } terminal{};
  static_assert(sizeof(terminal) == 8);
  int fds[3] = {stdin_fd, stdout_fd, stderr_fd};
  for (int i = 2; i >= 0; --i) {
    terminal.is_terminal[i] = isatty(fds[i]) == 1;
    winsize size{};
    if (terminal.is_terminal[i] != 0 && ioctl(fds[i], TIOCGWINSZ, &size) == 0) {
      terminal.rows = size.ws_row;
      terminal.columns = size.ws_col;
    }
  }
  abi::append_config(config, abi::ConfigTag::terminal, bytes_of(terminal));
}

void LostOutput::note(u32 which, int error) {
  if (error == EPIPE || !why_.empty()) return;
  why_ = std::string("output to ") + (which == 1 ? "stdout" : "stderr") + " was lost: " + strerror(error) +
         "; send it to where it can be written, or make room there";
}

void LostOutput::settle(MonitorResult& result) const {
  if (why_.empty() || !result.error.empty()) return;
  if (result.status == 0) result.status = 125;
  result.error = why_;
}

std::string describe_capture_loss(int error, u64 dropped) {
  if (error != 0 && error != EPIPE) return std::string(strerror(error)) + "; make room there, or name another file";
  if (error == 0 && dropped != 0) return std::to_string(dropped) + " frames are missing, the reader was too slow";
  return "";
}

bool ready_for_records(const MonitorOptions& options) { return options.events == nullptr || options.events->ready(); }

void watch_network_end(host::EventLoop& loop, const MonitorOptions& options) {
  if (!options.network || options.network->end < 0 || options.events == nullptr) return;
  loop.add(options.network->end, EPOLLIN, [&loop, &options](u32) {
    loop.remove(options.network->end);
    options.events->network_ended();
  });
}

bool asks_to_stop(u32 signal) { return signal != SIGUSR1 && signal != SIGUSR2; }

// What needs no image: made on a thread of its own while the caller finds the image and run() reads it.
struct Monitor::Preparation {
  Preparation() : thread([this] { prepare(); }) {}
  ~Preparation() { wait(); }
  void wait() {
    if (thread.joinable()) thread.join();
    shared = nullptr;
  }
  // The thread helps with this if its own work ends in time.
  void share(std::shared_ptr<FileWithCopy> work) {
    std::lock_guard lock(mutex);
    shared = std::move(work);
  }
  void prepare() {
    try {
      vm = std::make_unique<Vm>();
      vcpu = std::make_unique<Vcpu>(*vm, 0);
      created_ns = now_ns();
      std::shared_ptr<FileWithCopy> work;
      {
        std::lock_guard lock(mutex);
        work = shared;
      }
      if (work != nullptr) work->work();
    } catch (const MonitorError& failure) {
      error = failure.what();
    }
  }
  std::unique_ptr<Vm> vm;
  std::unique_ptr<Vcpu> vcpu;  // destroyed before the Vm
  std::string error;
  u64 created_ns = 0;
  std::mutex mutex;
  std::shared_ptr<FileWithCopy> shared;  // under mutex
  std::thread thread;                    // last: starts when the rest is there
};

class Monitor::Machine : public MmioHandler {
 public:
  Machine(Preparation& made, ImageFile image, const MonitorOptions& options);
  MonitorResult run();
  void send_signal(u32 signal) { devices_.control().send_value(abi::RecordType::signal, signal); }
  void set_window_size(u16 rows, u16 columns);
  void cut_power(int status);

  Next mmio_store(PhysAddr address, u32 size, u64 value) override;
  u64 mmio_load(PhysAddr address, u32 size) override;

 private:
  void load_image(ImageFile& image);
  void count_doorbell(u32 weight);
  void watch_timers();
  void watch_signals();
  void on_signal(const signalfd_siginfo& info);
  void on_timer();
  void arm_guest_timer();
  bool wake_is_due();
  bool parked_work();
  void access_batch(PhysAddr page);
  void on_record(abi::RecordType type, std::span<const u8> bytes);
  void on_input(std::span<const iovec> buffers);
  void fail_guest(const std::string& why);
  u64 deadline_at(u64 offset) const;  // in the monitor page
  u64 timer_deadline() const { return deadline_at(offsetof(abi::MonitorPage, timer_deadline)); }
  u64 park_deadline() const { return deadline_at(offsetof(abi::MonitorPage, park_deadline)); }
  std::string early_text() const;
  MonitorDevices::Hooks hooks();

  const MonitorOptions options_;
  Vm& vm_;
  Vcpu& vcpu_;
  host::FileDescriptor timer_doorbell_, guest_timer_, stop_timer_;
  PhysAddr monitor_page_;
  std::optional<TableEditor> table_editor_;  // once the image is loaded
  bool terminal_ = false, terminal_raw_ = false;
  bool crash_reported_ = false;
  int stop_signals_ = 0;
  u32 doorbell_weight_ = 0;
  u64 interrupts_typed_[3] = {};
  std::mutex guest_timer_mutex_;
  std::mutex result_mutex_;
  MonitorResult result_;
  bool ended_ = false;      // under result_mutex_: result_.status is final
  LostOutput lost_output_;  // under result_mutex_
  LazyWake lazy_wake_;
  BackAhead back_ahead_;
  MonitorDevices devices_;  // last: its thread uses the rest
};

MonitorDevices::Hooks Monitor::Machine::hooks() {
  return {
      .notify_guest = [this] { vcpu_.request_interrupt(); },
      .frames_arrived = [this] { lazy_wake_.request(devices_.network()->unheeded()); },
      .guest_failed = [this](const std::string& why) { fail_guest(why); },
      .record = [this](abi::RecordType type, std::span<const u8> bytes) { on_record(type, bytes); },
      .ready_for_records = [this] { return ready_for_records(options_); },
      .input_arrived = [this](std::span<const iovec> buffers) { on_input(buffers); },
      .output_closed =
          [this](u32 which, int error) {
            std::lock_guard lock(result_mutex_);
            lost_output_.note(which, error);
          },
      .spare_time =
          [this] {
            (void)ready_for_records(options_);
            return back_ahead_.step();
          },
  };
}

Monitor::Machine::Machine(Preparation& made, ImageFile image, const MonitorOptions& options)
    : options_(options),
      vm_(*made.vm),
      vcpu_(*made.vcpu),
      timer_doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      guest_timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      stop_timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)),
      terminal_(isatty(options.stdin_fd) == 1),
      lazy_wake_(vcpu_),
      back_ahead_(vm_.memory()),
      devices_(vm_.memory(), {options.stdin_fd, options.stdout_fd, options.stderr_fd}, options.network, hooks()) {
  result_.timeline.vm_created_ns = made.created_ns;
  load_image(image);
  watch_timers();
  watch_signals();
}

void Monitor::Machine::load_image(ImageFile& image) {
  u64 tsc_now = __rdtsc();
  std::vector<u8> config = options_.config;
  append_host_config(config, options_.stdin_fd, options_.stdout_fd, options_.stderr_fd, vcpu_.tsc_frequency(), tsc_now);
  u8 entropy[32];
  random_bytes(entropy);
  std::vector<abi::DeviceWindow> windows = devices_.windows();
  LoadedMachine loaded = load_machine(vm_, image,
                                      {.ram_size = options_.memory_size,
                                       .config = config,
                                       .entropy = entropy,
                                       .windows = windows,
                                       .features = vcpu_.features(),
                                       .start_tsc = 0,
                                       .shadow_paging = TableEditor::worthwhile()});
  table_editor_.emplace(vm_.memory(), loaded.nub_state, loaded.vcpu_shared);
  vcpu_.load(loaded.cpu);
  monitor_page_ = loaded.monitor_page;
  if (ParkedService* service = devices_.parked_service(); service != nullptr) {
    service->tell_guest = [this](bool serving) { vm_.memory().write(monitor_page_ + offsetof(abi::MonitorPage, serves_parked), u32{serving}); };
  }
  result_.timeline.loaded_ns = now_ns();
}

// A doorbell that exits costs ten times one that KVM turns into an event, but KVM's doorbells make the end of the machine wait for the host's
// kernel (10 to 20 ms, srcu_barrier): a machine gets them when it has rung often enough to live long. One that sends frames is likely to.
void Monitor::Machine::count_doorbell(u32 weight) {
  u32 before = std::exchange(doorbell_weight_, std::min(doorbell_weight_ + weight, kFewDoorbells));
  if (before == kFewDoorbells || doorbell_weight_ != kFewDoorbells) return;
  for (u64 address : devices_.doorbell_addresses()) vm_.add_doorbell(address, 4, devices_.doorbell_fd());
  vm_.add_doorbell(abi::kMonitorDeviceAddress + abi::kMonitorTimer, 4, timer_doorbell_.get());
}

void Monitor::Machine::watch_timers() {
  auto drain_counter = [](int fd) {
    u64 count;
    return read(fd, &count, sizeof(count)) == sizeof(count);
  };
  devices_.loop().add(timer_doorbell_.get(), EPOLLIN, [this, drain_counter](u32) {
    drain_counter(timer_doorbell_.get());
    arm_guest_timer();
  });
  devices_.loop().add(guest_timer_.get(), EPOLLIN, [this, drain_counter](u32) {
    if (drain_counter(guest_timer_.get())) on_timer();
  });
  devices_.loop().add(lazy_wake_.fd(), EPOLLIN, [this](u32) {
    if (NetDevice* network = devices_.network(); network != nullptr) {
      std::lock_guard lock(network->mutex());
      lazy_wake_.on_timer(network->unheeded());
    }
  });
  devices_.loop().add(stop_timer_.get(), EPOLLIN, [this](u32) { cut_power(kStatusPowerCut); });
}

void Monitor::Machine::watch_signals() {
  if (options_.signal_fd >= 0) {
    devices_.loop().add(options_.signal_fd, EPOLLIN, [this](u32) {
      signalfd_siginfo info;
      if (read(options_.signal_fd, &info, sizeof(info)) == sizeof(info)) on_signal(info);
    });
  }
  watch_network_end(devices_.loop(), options_);
  if (options_.life_fd >= 0) {
    devices_.loop().add(options_.life_fd, EPOLLIN, [this](u32) {
      devices_.loop().remove(options_.life_fd);
      cut_power(kStatusPowerCut);
    });
  }
}

// The first request to stop gives the program its time; the third does not.
void Monitor::Machine::on_signal(const signalfd_siginfo& info) {
  if (info.ssi_signo == SIGWINCH) {
    winsize size{};
    for (int fd : {options_.stdout_fd, options_.stdin_fd, options_.stderr_fd}) {
      if (ioctl(fd, TIOCGWINSZ, &size) == 0) return set_window_size(size.ws_row, size.ws_col);
    }
    return;
  }
  send_signal(info.ssi_signo);
  if (!asks_to_stop(info.ssi_signo)) return;
  if (++stop_signals_ == 1) arm(stop_timer_.get(), std::max<u64>(options_.stop_timeout_ns, 1));
  if (stop_signals_ >= 3) cut_power(kStatusPowerCut);
}

void Monitor::Machine::set_window_size(u16 rows, u16 columns) {
  u16 size[2] = {rows, columns};
  devices_.control().send_value(abi::RecordType::window_size, size);
}

// Ctrl-C typed three times within a second at a program that keeps its terminal in line mode: the user means it.
void Monitor::Machine::on_input(std::span<const iovec> buffers) {
  if (!terminal_ || terminal_raw_ || buffers.empty() || buffers[0].iov_len == 0) return;
  if (*static_cast<volatile const u8*>(buffers[0].iov_base) != 3) return;
  u64 now = now_ns();
  interrupts_typed_[0] = interrupts_typed_[1];
  interrupts_typed_[1] = interrupts_typed_[2];
  interrupts_typed_[2] = now;
  if (interrupts_typed_[0] != 0 && now - interrupts_typed_[0] < kSecond) cut_power(128 + SIGINT);
}

std::string Monitor::Machine::early_text() const {
  abi::MonitorPage page{};
  vm_.memory().read(monitor_page_, &page);
  std::string text(page.early_text, std::min<u64>(page.early_text_size, sizeof(page.early_text)));
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
  }
  return text;
}

u64 Monitor::Machine::deadline_at(u64 offset) const {
  u64 deadline = 0;
  vm_.memory().read(monitor_page_ + offset, &deadline);
  return deadline;
}

// Any thread: what is read last is armed last.
void Monitor::Machine::arm_guest_timer() {
  std::lock_guard lock(guest_timer_mutex_);
  u64 deadline = timer_deadline();
  if (deadline == 0) return;
  u64 now = __rdtsc();
  u64 ticks = deadline > now ? deadline - now : 0;
  u64 delay_ns = static_cast<u64>(static_cast<unsigned __int128>(ticks) * kSecond / vcpu_.tsc_frequency());
  arm(guest_timer_.get(), std::clamp<u64>(delay_ns, 1, u64{3600} * kSecond));
}

void Monitor::Machine::on_timer() {
  u64 deadline = timer_deadline();
  if (deadline == 0) return;
  if (deadline <= __rdtsc()) vcpu_.request_interrupt();
  else arm_guest_timer();
}

// The guest is about to sleep, and frames arrived while it ran. If the other thread is at work with them, then it has not seen all.
bool Monitor::Machine::wake_is_due() {
  std::unique_lock lock(devices_.network()->mutex(), std::try_to_lock);
  return !lock.owns_lock() || devices_.network()->unheeded() != 0;
}

// True: the guest need not sleep.
bool Monitor::Machine::parked_work() {
  ParkedService* service = devices_.parked_service();
  u32 knows = 0;
  vm_.memory().read(monitor_page_ + offsetof(abi::MonitorPage, parks_at_once), &knows);
  if (service == nullptr || knows == 0) return false;
  bool news = service->serve(park_deadline(), [this] { return vcpu_.is_wanted(); });
  std::lock_guard lock(devices_.network()->mutex());
  if (std::string error = devices_.network()->error(); !error.empty()) fail_guest(error);
  return news;
}

void Monitor::Machine::on_record(abi::RecordType type, std::span<const u8> bytes) {
  std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  MonitorEvents* events = options_.events;
  switch (type) {
    case abi::RecordType::exit:
      if (bytes.size() == sizeof(abi::ExitRecord)) {
        std::lock_guard lock(result_mutex_);
        memcpy(&result_.exit_record.emplace(), bytes.data(), bytes.size());
      }
      return;
    case abi::RecordType::window:
      terminal_raw_ = !bytes.empty() && bytes[0] == 1;
      if (events != nullptr) events->raw_terminal(terminal_raw_);
      return;
    case abi::RecordType::log:
      if (events != nullptr && !bytes.empty()) events->log(bytes[0], text.substr(1));
      return;
    case abi::RecordType::trace:
      if (events != nullptr) events->trace(text);
      return;
    case abi::RecordType::crash:
      crash_reported_ = true;
      if (events != nullptr) events->crash(bytes);
      return;
    default: return;
  }
}

void Monitor::Machine::fail_guest(const std::string& why) {
  {
    std::lock_guard lock(result_mutex_);
    if (ended_) return;
    ended_ = true;
    result_.status = 125;
    result_.error = "the guest broke the rules of a device: " + why;
  }
  vcpu_.request_stop();
}

void Monitor::Machine::cut_power(int status) {
  {
    std::lock_guard lock(result_mutex_);
    result_.status = status;
    result_.cut_off = true;
    ended_ = true;
  }
  arm(stop_timer_.get(), u64{3600} * kSecond);
  devices_.abandon();
  vcpu_.request_stop();
}

MmioHandler::Next Monitor::Machine::mmio_store(PhysAddr address, u32 size, u64 value) {
  if (address.value >= abi::kVirtioMmioAddress) {
    u64 offset = address.value - abi::kVirtioMmioAddress;
    devices_.store(offset, size, value);
    if (offset % abi::kVirtioMmioStride == abi::virtio::kMmioQueueNotify) count_doorbell(devices_.is_network(offset) ? kNetworkDoorbellWeight : 1);
    return Next::resume;
  }
  switch (address.value - abi::kMonitorDeviceAddress) {
    case abi::kMonitorPark:
      if (parked_work()) return Next::resume;
      vcpu_.park(park_deadline(), [this] { return wake_is_due(); });
      return Next::resume;
    case abi::kMonitorTimer:
      arm_guest_timer();
      count_doorbell(1);
      return Next::resume;
    case abi::kMonitorTables:
      table_editor_->run(static_cast<u32>(value));
      if (back_ahead_.reached(table_editor_->memory_end())) devices_.loop().wake();
      return Next::resume;
    case abi::kMonitorBack:
      back_ahead_.ask(static_cast<u32>(value));
      devices_.loop().wake();
      return Next::resume;
    case abi::kMonitorBatchAccess: access_batch(PhysAddr{value << kPageShift}); return Next::resume;
    case abi::kMonitorPowerOff: {
      std::lock_guard lock(result_mutex_);
      if (!ended_) result_.status = static_cast<int>(value & 0xff);
      ended_ = true;
      return Next::stop;
    }
    default: return Next::resume;
  }
}

// Each field is the guest's to change at any time: read once, and nothing but its own answers depends on it.
void Monitor::Machine::access_batch(PhysAddr page) {
  using abi::MonitorBatch;
  u32 count = 0, done = 0;
  if (!vm_.memory().read(page + offsetof(MonitorBatch, count), &count)) return;
  for (; done < std::min(count, abi::kMonitorBatchMax); ++done) {
    PhysAddr at = page + offsetof(MonitorBatch, accesses) + done * sizeof(MonitorBatch::Access);
    MonitorBatch::Access access;
    if (!vm_.memory().read(at, &access)) break;
    u64 offset = access.offset & ~abi::kMonitorBatchRead;
    if (offset >= devices_.count() * abi::kVirtioMmioStride) break;
    if ((access.offset & abi::kMonitorBatchRead) == 0) {
      devices_.store(offset, sizeof(u32), access.value);
      continue;
    }
    u32 answer = static_cast<u32>(devices_.load(offset, sizeof(u32)));
    vm_.memory().write(at + offsetof(MonitorBatch::Access, value), answer);
  }
  vm_.memory().write(page + offsetof(MonitorBatch, done), done);
}

u64 Monitor::Machine::mmio_load(PhysAddr address, u32 size) {
  return address.value >= abi::kVirtioMmioAddress ? devices_.load(address.value - abi::kVirtioMmioAddress, size) : 0;
}

MonitorResult Monitor::Machine::run() {
  options_.before_guest();
  devices_.start();  // behind the jail's door: filters and capabilities are each thread's own, and a new thread has its maker's
  result_.timeline.tsc_frequency = vcpu_.tsc_frequency();
  result_.timeline.first_instruction_ns = now_ns();
  result_.timeline.first_instruction_tsc = __rdtsc();
  RunEnd end = vcpu_.run(*this);
  devices_.drain();
  devices_.stop();
  std::lock_guard lock(result_mutex_);
  result_.timeline.ended_ns = now_ns();
  if (end == RunEnd::crashed && !ended_) {
    result_.status = 125;
    result_.error = "the guest crashed: " + vcpu_.crash_report();
  } else if (result_.status == 125 && result_.error.empty() && !result_.exit_record && !crash_reported_) {
    result_.error = "the guest stopped before it could report why: " + early_text();
  }
  lost_output_.settle(result_);
  result_.capture_loss = devices_.capture_loss();
  result_.interrupts = vcpu_.interrupts_injected();
  result_.doorbells = devices_.doorbells();
  return result_;
}

Monitor::Monitor() : preparation_(std::make_unique<Preparation>()) {}
Monitor::~Monitor() = default;

MonitorResult Monitor::run(const MonitorOptions& options) {
  ImageFile image = ImageFile::open(options.image_path);
  if (TableEditor::worthwhile()) {
    preparation_->share(image.with_copy());
    image.with_copy()->work();
  }
  preparation_->wait();
  if (!preparation_->error.empty()) throw MonitorError(preparation_->error);
  machine_ = std::make_unique<Machine>(*preparation_, std::move(image), options);
  return machine_->run();
}

void Monitor::send_signal(u32 signal) { machine_->send_signal(signal); }
void Monitor::set_window_size(u16 rows, u16 columns) { machine_->set_window_size(rows, columns); }
void Monitor::power_off() { machine_->cut_power(kStatusPowerCut); }

}  // namespace husk::vmm
