// `husk run`: finds or makes the image, runs the machine in a jail, and says what the user asked to know.
//
// Order matters for speed: the virtual machine is made on another thread while the image is looked up; the jail closes last.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "abi/boot_config.h"
#include "cli/configuration.h"
#include "cli/crash_report.h"
#include "cli/embedded.h"
#include "cli/failure.h"
#include "cli/image_files.h"
#include "cli/network.h"
#include "cli/program.h"
#include "cli/terminal.h"
#include "cli/timeline.h"
#include "image/open.h"
#include "vmm/devices/byte_stream.h"
#include "vmm/monitor.h"
#include "vmm/monitor_error.h"
#include "vmm/qemu/qemu.h"
#include "vmm/sandbox/sandbox.h"

namespace husk::cli {
namespace {

constexpr const char* kLevels[] = {"error", "warning", "info", "debug"};

// Messages of husk and of the guest's kernel: to stderr, a line each, right also while the terminal is raw. While the machine runs they wait here for
// a slow reader, and the guest with the next ones; no thread does.
class Messages : public vmm::MonitorEvents {
 public:
  Messages(const RawTerminal& terminal, const ImageFiles& files)
      : terminal_(terminal), files_(files), stream_(STDERR_FILENO, vmm::HostStream::Direction::out) {}
  void log(u8 level, std::string_view text) override {
    print("husk: guest " + std::string(kLevels[level < 4 ? level : 3]) + ": " + clean(text) + "\n");
  }
  void trace(std::string_view text) override { print(clean(text) + "\n"); }
  void crash(std::span<const u8> record) override {
    auto read_file = [this](const std::string& path) { return files_.read(path).value_or(std::vector<u8>()); };
    print(describe_crash(record, read_file, embedded_kernel()));
  }
  void raw_terminal(bool) override {}
  void network_ended() override {
    print("husk: network: the user-mode network has ended; the machine goes on without it, until it is started again\n");
  }
  bool ready() override {
    std::lock_guard lock(mutex_);
    return flush();
  }
  void print(const std::string& text) {
    std::lock_guard lock(mutex_);
    for (char c : text) {
      if (c == '\n' && terminal_.active()) waiting_ += '\r';
      waiting_ += c;
    }
    flush();
  }
  // The rest, when the machine is gone: as long as the reader takes, if nobody asks to stop.
  void finish() {
    if (ready()) return;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    while (!ready()) {
      pollfd room{STDERR_FILENO, POLLOUT, 0};
      (void)poll(&room, 1, -1);
    }
  }

 private:
  // True: nothing waits. A reader that is gone will not come back.
  bool flush() {
    stream_.set_ready();
    while (!waiting_.empty()) {
      const iovec part{waiting_.data(), waiting_.size()};
      ssize_t count = stream_.write({&part, 1});
      if (count == -EAGAIN) return false;
      waiting_.erase(0, count < 0 ? waiting_.size() : static_cast<size_t>(count));
    }
    return true;
  }
  static std::string clean(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
      if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = c == '\t' ? ' ' : '?';
    }
    return out;
  }
  const RawTerminal& terminal_;
  const ImageFiles& files_;
  std::mutex mutex_;
  vmm::HostStream stream_;
  std::string waiting_;
};

// Descriptors 0, 1 and 2 exist from now on: nothing that we open may become the program's output by accident.
void ensure_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  }
}

int block_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGUSR1, SIGUSR2}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

// Why KVM cannot be used at first sight, or "".
std::string kvm_trouble() {
  if (access("/dev/kvm", R_OK | W_OK) == 0) return "";
  return std::string("/dev/kvm: ") + strerror(errno);
}

image::Image open_image(const std::string& path) {
  try {
    return image::Image::open(path, image::Verify::start);
  } catch (const image::Error& error) {
    throw Failure(error.what(), kStatusCannotRun);
  }
}

u64 memory_size_of(const image::Image& image) {
  u64 size = kDefaultMemory;
  abi::ConfigReader reader(image.config());
  while (auto record = reader.next()) {
    if (record->tag == abi::ConfigTag::memory_size && record->bytes.size() == sizeof(size)) memcpy(&size, record->bytes.data(), sizeof(size));
  }
  return size;
}

class Run {
 public:
  Run(const RunOptions& options, u64 command_start_ns) : options_(options) { timeline_.command_start_ns = command_start_ns; }
  int execute();
  void end_network() {
    if (network_) network_->close();
  }

 private:
  bool choose_kvm();
  std::pair<std::string, image::Image> find_image(const Target& target);
  vmm::MonitorResult run_machine(vmm::MonitorOptions& machine);
  void say_how_it_went(const vmm::MonitorResult& result, Messages& messages);

  const RunOptions& options_;
  std::string fallback_note_;  // said when nothing else is in the way: an error stays one line
  RawTerminal terminal_;
  Timeline timeline_;
  std::optional<MachineNetwork> network_;
  std::unique_ptr<vmm::Monitor> monitor_;
  vmm::sandbox::Report jail_;
};

bool Run::choose_kvm() {
  vmm::sandbox::detach(jail_);
  if (options_.hypervisor == "qemu") return false;
  std::string trouble = kvm_trouble();
  if (!trouble.empty() && options_.hypervisor == "kvm") throw Failure(trouble + "; see: husk doctor");
  if (!trouble.empty()) {
    fallback_note_ = "husk: " + trouble + ": running in QEMU without KVM, which is slower; see: husk doctor\n";
    return false;
  }
  monitor_ = std::make_unique<vmm::Monitor>();
  return true;
}

std::pair<std::string, image::Image> Run::find_image(const Target& target) {
  if (target.is_image) return {target.path, open_image(target.path)};
  std::string path = cached_image(target.path, options_);
  try {
    return {path, image::Image::open(path, image::Verify::start)};
  } catch (const image::Error&) {  // damaged in the cache
    unlink(path.c_str());
    path = cached_image(target.path, options_);
    return {path, open_image(path)};
  }
}

vmm::MonitorResult Run::run_machine(vmm::MonitorOptions& machine) {
  machine.before_guest = [this] { vmm::sandbox::enter(jail_); };
  if (monitor_ == nullptr) return vmm::run_qemu(machine, {.machine = options_.machine});
  return monitor_->run(machine);
}

int Run::execute() {
  ensure_standard_descriptors();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // EFBIG says it
  // The name is judged first: "not found" is 127, whatever else is wrong.
  Target target = find_target(options_.target);
  vmm::sandbox::close_inherited_descriptors();
  network_.emplace(options_.network);  // forks: before there are threads
  bool kvm = choose_kvm();
  if (target.is_image && !options_.with.empty())
    throw Failure(options_.target + ": is an image, to which --with adds nothing; say it to: husk build");
  auto [path, image] = find_image(target);
  timeline_.image_ready_ns = monotonic_ns();
  ImageFiles files(image.rootfs());
  Messages messages(terminal_, files);

  vmm::MonitorOptions machine;
  machine.image_path = path;
  machine.memory_size = align_up(options_.memory != 0 ? options_.memory : memory_size_of(image), kPageSize);
  machine.config = make_configuration(image.config(), options_, target.is_image ? TargetKind::image : TargetKind::program);
  network_->append_configuration(machine.config);
  machine.stop_timeout_ns = options_.stop_timeout_ns;
  machine.events = &messages;
  machine.signal_fd = block_signals();
  machine.network = network_->open(options_.name.empty() ? options_.target : options_.name);
  fputs(fallback_note_.c_str(), stderr);
  terminal_.start();
  vmm::MonitorResult result = run_machine(machine);
  terminal_.restore();
  timeline_.kvm = kvm;
  say_how_it_went(result, messages);
  return result.status;
}

void Run::say_how_it_went(const vmm::MonitorResult& result, Messages& messages) {
  if (!result.error.empty()) messages.print("husk: " + options_.target + ": " + result.error + "\n");
  if (!result.capture_loss.empty())
    messages.print("husk: --pcap " + options_.network.pcap + ": the capture is not complete: " + result.capture_loss + "\n");
  if (options_.timeline) messages.print(timeline_.describe(result, options_.json));
  if (!result.cut_off) messages.finish();
}

}  // namespace

int run_command(const RunOptions& options, u64 command_start_ns) {
  // SAFETY: leaked on purpose. Taking the machine apart piece by piece costs time that the kernel's own cleaning at exit does not.
  Run* run = new Run(options, command_start_ns);
  try {
    int status = run->execute();
    fflush(stdout);
    // The network's process ends with its pair; while it does, the virtual machine's descriptors are let go, which exit would do anyway.
    close_range(3, ~0u, 0);
    run->end_network();
    _exit(status);
  } catch (...) {
    run->end_network();
    throw;
  }
}

}  // namespace husk::cli
