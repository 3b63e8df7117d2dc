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

#include "host/event_loop.h"
#include "vmm/devices/control_channel.h"
#include "vmm/monitor_error.h"
#include "vmm/qemu/pump.h"

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
constexpr size_t kSerialKept = 4096;
// Memory that a machine needs beside its image, which QEMU copies into it: with the first it starts, without the second even QEMU's firmware hangs.
constexpr u64 kBesideImage = 8 * kMiB, kLeastBesideImage = kMiB;

u64 now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * kSecond + static_cast<u64>(time.tv_nsec);
}

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
  std::vector<std::string> arguments(const std::string& config_path) const;
  void add_network(std::vector<std::string>& out, bool pci) const;
  void spawn(const std::string& config_path);
  void watch(HostStream& stream, u32 events);
  std::string too_little_memory() const;
  void on_signal();
  void on_record(abi::RecordType type, std::span<const u8> bytes);
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
  host::FileDescriptor config_, process_, stop_timer_;
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
  u64 enough = align_up(image_size_ + kBesideImage, kMiB) / kMiB;
  return "too little memory: QEMU copies the image into the machine's memory; give it more: -m " + std::to_string(enough) + "M";
}

QemuMachine::QemuMachine(const MonitorOptions& options, const QemuOptions& qemu) : options_(options), qemu_(qemu) {
  struct stat image;
  if (stat(options_.image_path.c_str(), &image) != 0) throw_errno(options_.image_path);
  image_size_ = static_cast<u64>(image.st_size);
  if (options_.memory_size < image_size_ + kLeastBesideImage) throw MonitorError(too_little_memory());
  for (int i = 0; i < kChannels; ++i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) throw_errno("connecting to QEMU");
    ours_[static_cast<size_t>(i)] = host::FileDescriptor(pair[0]);
    theirs_[static_cast<size_t>(i)] = host::FileDescriptor(pair[1]);
  }
  std::vector<u8> config = options.config;
  append_host_config(config, options.stdin_fd, options.stdout_fd, options.stderr_fd, measure_tsc_frequency(), 0);
  config_ = host::FileDescriptor(memfd_create("husk-config", 0));
  if (!config_ || write(config_.get(), config.data(), config.size()) != static_cast<ssize_t>(config.size())) {
    throw_errno("writing the boot configuration");
  }
  stop_timer_ = host::FileDescriptor(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  result_.status = 125;
  result_.timeline.vm_created_ns = now_ns();
  spawn("/proc/self/fd/" + std::to_string(config_.get()));
}

QemuMachine::~QemuMachine() {
  if (child_ > 0 && !child_ended_) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
}

std::vector<std::string> QemuMachine::arguments(const std::string& config_path) const {
  bool pci = qemu_.machine != "microvm";
  u64 memory_kib = std::max<u64>(options_.memory_size / kKiB, 1);
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
                                  std::to_string(memory_kib) + "k",
                                  "-smp",
                                  "1",
                                  "-kernel",
                                  options_.image_path,
                                  "-initrd",
                                  config_path,
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
  if (network.pcap_fd < 0) return;
  out.insert(out.end(), {"-object", "filter-dump,id=p0,netdev=n0,maxlen=65535,file=/proc/self/fd/" + std::to_string(network.pcap_fd)});
}

void QemuMachine::spawn(const std::string& config_path) {
  std::vector<std::string> words = arguments(config_path);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) != 0) throw_errno("starting QEMU");
  pid_t parent = getpid();
  child_ = fork();
  if (child_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    setpgid(0, 0);  // Ctrl-C is ours to pass on
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (auto& end : theirs_) fcntl(end.get(), F_SETFD, 0);
    if (options_.network) fcntl(options_.network->fd, F_SETFD, 0), fcntl(options_.network->pcap_fd, F_SETFD, 0);
    int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);  // stderr stays: QEMU's own complaints
    execvp(argv[0], argv.data());
    int error = errno;
    (void)!write(failure[1], &error, sizeof(error));
    _exit(127);
  }
  close(failure[1]);
  int error = 0;
  bool failed = child_ < 0 || read(failure[0], &error, sizeof(error)) == sizeof(error);
  close(failure[0]);
  if (failed) {
    throw MonitorError("starting " + qemu_.program + ": " + strerror(child_ < 0 ? errno : error) + "; install it: apt-get install qemu-system-x86");
  }
  for (auto& end : theirs_) end.reset();
  process_ = host::FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, child_, 0)));
}

void QemuMachine::watch(HostStream& stream, u32 events) {
  if (stream.fd() < 0) return;
  if (!loop_.add(stream.watch_fd(), events | EPOLLET, [&stream](u32) { stream.set_ready(); })) stream.set_always_ready();
}

void QemuMachine::cut_power() {
  cut_ = true;
  if (!child_ended_) kill(child_, SIGKILL);
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

void QemuMachine::on_record(abi::RecordType type, std::span<const u8> bytes) {
  std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (type == abi::RecordType::exit && bytes.size() == sizeof(abi::ExitRecord)) {
    memcpy(&result_.exit_record.emplace(), bytes.data(), bytes.size());
    result_.status = static_cast<int>(result_.exit_record->status & 0xff);
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
  if (!child_ended_) return again;
  // Output of the consoles: complete when their sockets have ended and all of it is written.
  bool complete = pumps_[1]->ended() && pumps_[2]->ended() && pumps_[3]->ended();
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
  receiver_ = std::make_unique<ControlReceiver>([this](abi::RecordType type, std::span<const u8> bytes) { on_record(type, bytes); });
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
  loop_.add(process_.get(), EPOLLIN, [this](u32) {
    waitpid(child_, nullptr, 0);
    child_ended_ = true;
    loop_.remove(process_.get());
  });
  loop_.add(stop_timer_.get(), EPOLLIN, [this](u32) { loop_.remove(stop_timer_.get()), cut_power(); });
  if (options_.signal_fd >= 0) loop_.add(options_.signal_fd, EPOLLIN, [this](u32) { on_signal(); });
  loop_.set_after_round([this] { return process(); });
  loop_.run();
  result_.timeline.ended_ns = now_ns();
  if (cut_) {
    result_.status = 128 + SIGKILL;
  } else if (!result_.exit_record && options_.memory_size < image_size_ + kBesideImage) {
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
