// The monitor: makes one virtual machine from one image under KVM, runs it, and says how it ended.
//
// No globals: many monitors may live in one process, each with a thread of its own for input and output besides the caller's, which runs
// the vCPU. The constructor starts to make the virtual machine in the background, so that the caller can look for the image
// and run() read it meanwhile. What the caller wants to hear (logs, crashes) comes as MonitorEvents, on either thread, never both at once.
// The process must ignore or block SIGPIPE. Called by cli/; the process around it is jailed by vmm/sandbox in `before_guest`.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "abi/control_records.h"
#include "base/types.h"

namespace husk::host {
class EventLoop;
}

namespace husk::vmm {

struct MonitorEvents {
  virtual ~MonitorEvents() = default;
  virtual void log(u8 level, std::string_view text) = 0;  // level as ConfigTag::log_level
  virtual void trace(std::string_view text) = 0;
  virtual void crash(std::span<const u8> record) = 0;  // CrashRecord and what belongs to it, not checked
  virtual void raw_terminal(bool raw) = 0;
  virtual void network_ended() {}  // NetworkDevice::end; once, the machine goes on
  // False: too much waits for its reader already; what the guest says next is left with it until this is true. Asked often, from both threads.
  virtual bool ready() { return true; }
};

// A network device for the guest: frames go to and come from a descriptor, opened by vmm/net/ before the jail closes.
struct NetworkDevice {
  int fd = -1;               // one frame per read or write: a TAP interface, or one end of a SOCK_SEQPACKET pair; non-blocking
  bool vnet_header = false;  // frames begin with a 12-byte virtio_net_hdr (TAP): checksums and segmentation are left to the other side
  u8 mac[6] = {};            // the guest's
  u16 mtu = 1500;
  int pcap_fd = -1;  // every frame is written there too, pcap format
  int end = -1;      // readable when what serves the other side has ended: a pidfd
};

struct MonitorOptions {
  std::string image_path;
  u64 memory_size = 256 * kMiB;
  std::vector<u8> config;  // boot_config.h without what the monitor adds: seed, clock, TSC frequency, terminal
  int stdin_fd = 0, stdout_fd = 1, stderr_fd = 2;
  int signal_fd = -1;  // signalfd(2) of SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGUSR1, SIGUSR2: passed on to the program
  int life_fd = -1;    // readable or closed at the other end: the machine is cut off
  u64 stop_timeout_ns = u64{10} * 1000 * 1000 * 1000;  // from the first stop signal to power off
  std::optional<NetworkDevice> network;                // the configuration's network records are the caller's
  MonitorEvents* events = nullptr;
  std::function<void()> before_guest = [] {};  // everything is open and this the only thread: the jail may close
};

// In nanoseconds of CLOCK_MONOTONIC; 0 = did not happen or is not known. The guest's own times are in MonitorResult::exit_record. Of a machine in QEMU
// the first instruction's time is worked out from the end, to some milliseconds.
struct MonitorTimeline {
  u64 vm_created_ns = 0, loaded_ns = 0, first_instruction_ns = 0, ended_ns = 0;
  u64 first_instruction_tsc = 0, tsc_frequency = 0;
};

struct MonitorResult {
  int status = 125;          // for the shell: the program's, or 125 with `error`, or 128 + signal when it was cut off
  bool cut_off = false;      // the program did not end by itself
  std::string error;         // what the monitor or the guest did wrong, one line, and details behind it
  std::string capture_loss;  // why frames are missing in the capture; not the program's failure
  std::optional<abi::ExitRecord> exit_record;
  MonitorTimeline timeline;
  u64 interrupts = 0, doorbells = 0;
};

class Monitor {
 public:
  Monitor();
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // Blocks until the machine is off. Once. Throws MonitorError if it could not be started.
  MonitorResult run(const MonitorOptions& options);

  // Any thread, while run() runs.
  void send_signal(u32 signal);
  void set_window_size(u16 rows, u16 columns);
  void power_off();  // at once, nothing is drained; status 137

 private:
  class Machine;
  struct Preparation;
  std::unique_ptr<Preparation> preparation_;
  std::unique_ptr<Machine> machine_;
};

// The boot configuration that only the host knows at the moment of starting: appended to `config`.
void append_host_config(std::vector<u8>& config, int stdin_fd, int stdout_fd, int stderr_fd, u64 tsc_frequency, u64 tsc_now);

// What the program wrote and the host could not. The program may have ended by then, content with it: then nobody else says that it was lost.
class LostOutput {
 public:
  void note(u32 which, int error);           // 1 stdout, 2 stderr; EPIPE: its reader is gone, nothing is lost
  void settle(MonitorResult& result) const;  // its error, if it has none yet, and 125 in place of success

 private:
  std::string why_;
};

// What MonitorResult::capture_loss says: errno of a write (EPIPE: the reader went, nothing is to be said), frames for which a reader was too slow.
std::string describe_capture_loss(int error, u64 dropped);

// Whether more can be said to MonitorEvents now; what waits there goes on.
bool ready_for_records(const MonitorOptions& options);
// NetworkDevice::end is told to MonitorEvents once. `options` outlives the loop.
void watch_network_end(host::EventLoop& loop, const MonitorOptions& options);

// Whether the signal asks the program to stop, and the power to go off if it does not. The others are between the program and who sends them.
bool asks_to_stop(u32 signal);

}  // namespace husk::vmm
