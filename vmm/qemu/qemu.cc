// See vmm/qemu/qemu.h. PVH boot: QEMU takes -kernel's ELF note, -initrd becomes module 0.
#include "vmm/qemu/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>

#include "abi/image_format.h"
#include "host/event_loop.h"
#include "vmm/devices/control_channel.h"
#include "vmm/monitor_error.h"
#include "vmm/qemu/pump.h"
#include "vmm/sandbox/sandbox.h"

namespace husk::vmm {

bool Pump::process() {
  for (int round = 0; round < 16; ++round) {
    if (start_ == size_ && !ended_) {
      iovec room{buffer_.data(), buffer_.size()};
      ssize_t count = source_.read({&room, 1});
      if (count == -EAGAIN) return false;
      start_ = 0;
      size_ = count > 0 ? static_cast<size_t>(count) : 0;
      total_ += size_;
      if (count <= 0) {
        ended_ = true;
        on_end(total_);
      }
    }
    if (start_ == size_) return false;
    iovec rest{buffer_.data() + start_, size_ - start_};
    ssize_t count = closed_ ? static_cast<ssize_t>(rest.iov_len) : sink_.write({&rest, 1});
    if (count == -EAGAIN) return false;
    if (count < 0) {
      closed_ = true;
      on_closed(static_cast<int>(-count));
      continue;
    }
    start_ += static_cast<size_t>(count);
  }
  return true;
}

namespace {

constexpr u64 kSecond = 1000 * 1000 * 1000;
constexpr int kSerial = 3, kChannels = 4;  // three consoles and the 16550
constexpr const char* kOurDescriptors = "/proc/self/fd/";
constexpr size_t kSerialKept = 4096;
// TCG leaves the memory barriers of a machine out that can never have a second CPU (QEMU before 8.1 all of them, later ones those of locked
// instructions), although devices run on other threads: a queue's entry and the wish for its doorbell (virtio 1.2 §2.7.13.4.1) cross, and both sides wait.
constexpr const char* kOneCpuWithBarriers = "1,maxcpus=2";
// A program with less memory than this may have ended its machine by that.
constexpr u64 kSurelyEnough = 8 * kMiB;

u64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * kSecond + static_cast<u64>(time.tv_nsec);
}

// QEMU copies the image into the machine's memory, and the nub's entry works in the 2 MiB behind it (nub/pvh.S): both come on top of what
// the program was promised, so that -m means the same as on KVM. Up to 4 MiB more than that are usable.
u64 machine_memory(u64 promised, u64 image_size) { return align_up(abi::kImageLoadAddress + image_size, kHugePageSize) + kHugePageSize + promised; }

// The TSC of this machine, measured: QEMU's TCG shows it to the guest, counted from the guest's start.
u64 measure_tsc_frequency() {
  u64 start_ns = now_ns(), start = __rdtsc();
  timespec pause{0, 10 * 1000 * 1000};
  nanosleep(&pause, nullptr);
  u64 ticks = __rdtsc() - start, elapsed = now_ns() - start_ns;
  return static_cast<u64>(static_cast<unsigned __int128>(ticks) * kSecond / elapsed);
}

class QemuMachine {
 public:
  QemuMachine(const MonitorOptions& options, const QemuOptions& qemu);
  ~QemuMachine();
  MonitorResult run();

 private:
  void open_image();
  void open_capture();
  std::vector<std::string> arguments() const;
  void add_network(std::vector<std::string>& out, bool pci) const;
  void spawn();
  [[noreturn]] void become_qemu(pid_t parent, std::vector<std::string> words, int failure);
  void kill_child();
  void watch(HostStream& stream, u32 events);
  std::string too_little_memory() const;
  void on_signal();
  void on_record(abi::RecordType type, std::span<const u8> bytes);
  void place_guest_times(u64 exit_tsc);
  void cut_power();
  bool process();

  // Serial output: kept for the error message.
  struct Tail : ByteSink {
    std::string text;
    ssize_t write(std::span<const iovec> buffers) override {
      size_t total = 0;
      for (const iovec& part : buffers) {
        text.append(static_cast<const char*>(part.iov_base), part.iov_len);
        total += part.iov_len;
      }
      if (text.size() > 2 * kSerialKept) text.erase(0, text.size() - kSerialKept);
      return static_cast<ssize_t>(total);
    }
  };

  const MonitorOptions& options_;
  const QemuOptions& qemu_;
  host::EventLoop loop_;
  std::array<host::FileDescriptor, kChannels> ours_, theirs_;
  host::FileDescriptor image_, config_, process_, stop_timer_;
  host::FileDescriptor capture_ours_, capture_theirs_;  // frames on their way to NetworkDevice::pcap_fd
  pid_t child_ = 0;
  std::vector<std::unique_ptr<HostStream>> streams_;
  std::unique_ptr<ControlReceiver> receiver_;
  std::unique_ptr<ControlSender> sender_;
  Tail serial_;
  std::vector<std::unique_ptr<Pump>> pumps_;
  MonitorResult result_;
  bool child_ended_ = false, cut_ = false;
  int stop_signals_ = 0;
  LostOutput lost_output_;
  u64 image_size_ = 0;
};

std::string QemuMachine::too_little_memory() const {
  return "too little memory for this image; give the machine more with -m (it has " + std::to_string(options_.memory_size / kKiB) + " KiB)";
}

QemuMachine::QemuMachine(const MonitorOptions& options, const QemuOptions& qemu) : options_(options), qemu_(qemu) {
  for (int i = 0; i < kChannels; ++i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) throw_errno("connecting to QEMU");
    ours_[static_cast<size_t>(i)] = host::FileDescriptor(pair[0]);
    theirs_[static_cast<size_t>(i)] = host::FileDescriptor(pair[1]);
  }
  open_image();
  open_capture();
  std::vector<u8> config = options.config;
  result_.timeline.tsc_frequency = measure_tsc_frequency();
  append_host_config(config, options.stdin_fd, options.stdout_fd, options.stderr_fd, result_.timeline.tsc_frequency, 0);
  config_ = host::FileDescriptor(memfd_create("husk-config", MFD_CLOEXEC));
  if (!config_ || write(config_.get(), config.data(), config.size()) != static_cast<ssize_t>(config.size())) {
    throw_errno("writing the boot configuration");
  }
  stop_timer_ = host::FileDescriptor(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  result_.status = 125;
  result_.timeline.vm_created_ns = now_ns();
  spawn();
}

QemuMachine::~QemuMachine() {
  if (child_ <= 0 || child_ended_) return;
  kill_child();
  waitpid(child_, nullptr, 0);
}

// By its descriptor: in the jail there is no kill(2).
void QemuMachine::kill_child() { syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0); }

// QEMU opens the image again by its descriptor. Root's QEMU is nobody's process (see become_qemu): of an image that not everybody may read it gets a copy.
void QemuMachine::open_image() {
  image_ = host::FileDescriptor(open(options_.image_path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat image;
  if (!image_ || fstat(image_.get(), &image) != 0) throw_errno(options_.image_path);
  image_size_ = static_cast<u64>(image.st_size);
  if (geteuid() != 0 || (image.st_mode & S_IROTH) != 0) return;
  host::FileDescriptor copy(memfd_create("husk-image", MFD_CLOEXEC));
  for (u64 left = image_size_; left > 0;) {
    ssize_t count = sendfile(copy.get(), image_.get(), nullptr, left);
    if (count <= 0) throw_errno("copying " + options_.image_path);
    left -= static_cast<u64>(count);
  }
  image_ = std::move(copy);
}

// The capture's file is the user's, and QEMU opens by name what it writes: it writes into a pipe.
void QemuMachine::open_capture() {
  if (!options_.network || options_.network->pcap_fd < 0) return;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw_errno("connecting to QEMU");
  capture_ours_ = host::FileDescriptor(ends[0]);
  capture_theirs_ = host::FileDescriptor(ends[1]);
  if (geteuid() == 0 && fchown(ends[1], sandbox::kNobody, sandbox::kNobody) != 0) throw_errno("connecting to QEMU");
}

std::vector<std::string> QemuMachine::arguments() const {
  bool pci = qemu_.machine != "microvm";
  std::vector<std::string> out = {qemu_.program,
                                  "-nodefaults",
                                  "-no-user-config",
                                  "-display",
                                  "none",
                                  "-no-reboot",
                                  "-nic",
                                  "none",
                                  "-M",
                                  qemu_.machine,
                                  "-accel",
                                  qemu_.accelerator,
                                  "-cpu",
                                  qemu_.accelerator == "tcg" ? "max" : "host",
                                  "-m",
                                  std::to_string(machine_memory(options_.memory_size, image_size_) / kKiB) + "k",
                                  "-smp",
                                  kOneCpuWithBarriers,
                                  "-kernel",
                                  kOurDescriptors + std::to_string(image_.get()),
                                  "-initrd",
                                  kOurDescriptors + std::to_string(config_.get()),
                                  "-sandbox",
                                  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                                  "-global",
                                  "virtio-mmio.force-legacy=false"};
  auto add = [&](const std::string& option, const std::string& value) {
    out.push_back(option);
    out.push_back(value);
  };
  // The order of devices is the contract: windows (microvm) or slots (q35) in ascending order.
  for (int i = 0; i < kSerial; ++i) {
    std::string n = std::to_string(i);
    add("-chardev", "socket,id=c" + n + ",fd=" + std::to_string(theirs_[static_cast<size_t>(i)].get()));
    add("-device", pci ? "virtio-serial-pci,id=s" + n + ",max_ports=2,disable-legacy=on,addr=" + std::to_string(i + 1)
                       : "virtio-serial-device,id=s" + n + ",max_ports=2,bus=virtio-mmio-bus." + n);
    add("-device", "virtserialport,nr=1,bus=s" + n + ".0,chardev=c" + n);
  }
  add("-device", pci ? "virtio-rng-pci,disable-legacy=on,addr=4" : "virtio-rng-device,bus=virtio-mmio-bus.3");
  if (options_.network) add_network(out, pci);
  add("-chardev", "socket,id=serial,fd=" + std::to_string(theirs_[kSerial].get()));
  add("-serial", "chardev:serial");
  return out;
}

// QEMU's end of the network is the descriptor that the monitor would use itself.
void QemuMachine::add_network(std::vector<std::string>& out, bool pci) const {
  const NetworkDevice& network = *options_.network;
  std::string fd = std::to_string(network.fd);
  char mac[18];
  snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", network.mac[0], network.mac[1], network.mac[2], network.mac[3], network.mac[4],
           network.mac[5]);
  out.insert(out.end(), {"-netdev", network.vnet_header ? "tap,id=n0,vhost=off,fd=" + fd : "dgram,id=n0,local.type=fd,local.str=" + fd});
  std::string device = pci ? "virtio-net-pci,disable-legacy=on,addr=5,romfile=" : "virtio-net-device,bus=virtio-mmio-bus.4";
  out.insert(out.end(), {"-device", device + ",netdev=n0,mac=" + mac + ",host_mtu=" + std::to_string(network.mtu)});
  if (!capture_theirs_) return;
  out.insert(out.end(), {"-object", "filter-dump,id=p0,netdev=n0,maxlen=65535,file=" + (kOurDescriptors + std::to_string(capture_theirs_.get()))});
}

// In the child: nobody's process without privileges, that dies with its parent and inherits what it is to use.
void QemuMachine::become_qemu(pid_t parent, std::vector<std::string> words, int failure) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  setpgid(0, 0);  // Ctrl-C is ours to pass on
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  auto inherit = [](const host::FileDescriptor& fd) { fcntl(fd.get(), F_SETFD, 0); };
  for (auto& end : theirs_) inherit(end);
  for (auto* fd : {&image_, &config_, &capture_theirs_}) inherit(*fd);
  if (options_.network) fcntl(options_.network->fd, F_SETFD, 0);
  int null = open("/dev/null", O_RDWR);
  dup2(null, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);  // stderr stays: QEMU's own complaints
  sandbox::Report report;
  sandbox::give_up_privileges(report);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // forgotten when the user changes: after that
  if (getppid() != parent) _exit(1);
  execvp(argv[0], argv.data());
  int error = errno;
  (void)!write(failure, &error, sizeof(error));
  _exit(127);
}

void QemuMachine::spawn() {
  std::vector<std::string> words = arguments();
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) != 0) throw_errno("starting QEMU");
  pid_t parent = getpid();
  child_ = fork();
  if (child_ == 0) become_qemu(parent, std::move(words), failure[1]);
  close(failure[1]);
  int error = 0;
  bool failed = child_ < 0 || read(failure[0], &error, sizeof(error)) == sizeof(error);
  close(failure[0]);
  if (failed) {
    throw MonitorError("starting " + qemu_.program + ": " + strerror(child_ < 0 ? errno : error) + "; install it: apt-get install qemu-system-x86");
  }
  for (auto& end : theirs_) end.reset();
  capture_theirs_.reset();
  image_.reset();
  process_ = host::FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, child_, 0)));
}

void QemuMachine::watch(HostStream& stream, u32 events) {
  if (stream.fd() < 0) return;
  if (!loop_.add(stream.watch_fd(), events | EPOLLET, [&stream](u32) { stream.set_ready(); })) stream.set_always_ready();
}

void QemuMachine::cut_power() {
  cut_ = true;
  if (!child_ended_) kill_child();
}

void QemuMachine::on_signal() {
  signalfd_siginfo info;
  if (read(options_.signal_fd, &info, sizeof(info)) != sizeof(info)) return;
  if (info.ssi_signo == SIGWINCH) {
    winsize size{};
    if (ioctl(options_.stdout_fd, TIOCGWINSZ, &size) != 0) return;
    u16 window[2] = {size.ws_row, size.ws_col};
    sender_->send_value(abi::RecordType::window_size, window);
    return;
  }
  sender_->send_value(abi::RecordType::signal, u32{info.ssi_signo});
  if (!asks_to_stop(info.ssi_signo)) return;
  if (++stop_signals_ == 1) {
    itimerspec time{};
    u64 delay = std::max<u64>(options_.stop_timeout_ns, 1);
    time.it_value = {static_cast<time_t>(delay / kSecond), static_cast<long>(delay % kSecond)};
    timerfd_settime(stop_timer_.get(), 0, &time, nullptr);
  }
  if (stop_signals_ >= 3) cut_power();
}

// The guest's TSC counts from its first instruction, and nobody says when that was: some milliseconds too late, the program's exit is taken for now.
void QemuMachine::place_guest_times(u64 exit_tsc) {
  auto life = static_cast<unsigned __int128>(exit_tsc) * kSecond / result_.timeline.tsc_frequency;
  u64 now = now_ns();
  if (exit_tsc != 0 && life < now - result_.timeline.vm_created_ns) result_.timeline.first_instruction_ns = now - static_cast<u64>(life);
}

void QemuMachine::on_record(abi::RecordType type, std::span<const u8> bytes) {
  std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (type == abi::RecordType::exit && bytes.size() == sizeof(abi::ExitRecord)) {
    memcpy(&result_.exit_record.emplace(), bytes.data(), bytes.size());
    result_.status = static_cast<int>(result_.exit_record->status & 0xff);
    place_guest_times(result_.exit_record->tsc_program_exit);
  }
  if (options_.events == nullptr) return;
  if (type == abi::RecordType::log && !bytes.empty()) options_.events->log(bytes[0], text.substr(1));
  if (type == abi::RecordType::trace) options_.events->trace(text);
  if (type == abi::RecordType::crash) options_.events->crash(bytes);
  if (type == abi::RecordType::window && !bytes.empty()) options_.events->raw_terminal(bytes[0] == 1);
}

bool QemuMachine::process() {
  bool again = false;
  for (auto& pump : pumps_) again |= pump->process();
  (void)ready_for_records(options_);
  if (!child_ended_) return again;
  // Output of the consoles: complete when their sockets have ended and all of it is written.
  bool complete = pumps_[1]->ended() && pumps_[2]->ended() && pumps_[3]->ended() && (!capture_ours_ || pumps_.back()->ended());
  if (complete || cut_) loop_.stop();
  return again;
}

MonitorResult QemuMachine::run() {
  auto stream = [this](int fd, HostStream::Direction direction) -> HostStream& {
    streams_.push_back(std::make_unique<HostStream>(fd, direction));
    watch(*streams_.back(), direction == HostStream::Direction::in ? EPOLLIN : EPOLLOUT);
    return *streams_.back();
  };
  using enum HostStream::Direction;
  receiver_ = std::make_unique<ControlReceiver>([this](abi::RecordType type, std::span<const u8> bytes) { on_record(type, bytes); },
                                                [this] { return ready_for_records(options_); });
  sender_ = std::make_unique<ControlSender>([this] { loop_.wake(); });
  auto pump = [this](ByteSource& source, ByteSink& sink) -> Pump& {
    pumps_.push_back(std::make_unique<Pump>(source, sink));
    return *pumps_.back();
  };
  pump(stream(options_.stdin_fd, in), stream(ours_[0].get(), out)).on_end = [this](u64 bytes) {
    sender_->send_value(abi::RecordType::input_end, bytes);
  };
  auto closed = [this](u32 which) {
    return [this, which](int error) {
      sender_->send_output_closed(which, error);
      lost_output_.note(which, error);
    };
  };
  pump(stream(ours_[0].get(), in), stream(options_.stdout_fd, out)).on_closed = closed(1);
  pump(stream(ours_[1].get(), in), stream(options_.stderr_fd, out)).on_closed = closed(2);
  pump(stream(ours_[2].get(), in), *receiver_);
  pump(*sender_, stream(ours_[2].get(), out));
  pump(stream(ours_[kSerial].get(), in), serial_);
  if (capture_ours_) {
    pump(stream(capture_ours_.get(), in), stream(options_.network->pcap_fd, out)).on_closed = [this](int error) {
      result_.capture_loss = describe_capture_loss(error, 0);
    };
  }
  loop_.add(process_.get(), EPOLLIN, [this](u32) {
    waitpid(child_, nullptr, 0);
    child_ended_ = true;
    loop_.remove(process_.get());
  });
  loop_.add(stop_timer_.get(), EPOLLIN, [this](u32) { loop_.remove(stop_timer_.get()), cut_power(); });
  watch_network_end(loop_, options_);
  if (options_.signal_fd >= 0) loop_.add(options_.signal_fd, EPOLLIN, [this](u32) { on_signal(); });
  loop_.set_after_round([this] { return process(); });
  options_.before_guest();
  loop_.run();
  result_.timeline.ended_ns = now_ns();
  result_.cut_off = cut_;
  if (cut_) {
    result_.status = 128 + SIGKILL;
  } else if (!result_.exit_record && options_.memory_size < kSurelyEnough) {
    result_.status = 125;
    result_.error = too_little_memory();
  } else if (!result_.exit_record) {
    result_.status = 125;
    result_.error = "the guest ended without an exit record";
    if (!serial_.text.empty()) result_.error += "; its serial line says:\n" + serial_.text;
  } else {
    lost_output_.settle(result_);
  }
  return result_;
}

}  // namespace

MonitorResult run_qemu(const MonitorOptions& options, const QemuOptions& qemu) { return QemuMachine(options, qemu).run(); }

}  // namespace husk::vmm
