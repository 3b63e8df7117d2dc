// See vmm/net/user_process.h. The order: wait for work, give up what is not needed, load the library, open what is published, close the jail, serve.
#include "vmm/net/user_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/monitor_error.h"
#include "vmm/net/user_frame.h"
#include "vmm/net/user_jail.h"
#include "vmm/net/user_slirp.h"

namespace husk::vmm::net {
namespace {

constexpr int kPair = STDIN_FILENO;

// Messages go out, and nothing comes in: a terminal's descriptor is often open for both. A socket cannot be opened again and stays as it is.
void take_outputs() {
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, STDOUT_FILENO);
  struct stat error {};
  int flags = fcntl(STDERR_FILENO, F_GETFL);
  if (flags >= 0 && ((flags & O_ACCMODE) == O_WRONLY || (fstat(STDERR_FILENO, &error) == 0 && S_ISSOCK(error.st_mode)))) return;
  int again = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
  dup2(again >= 0 ? again : null, STDERR_FILENO);
}

// Holds nothing of the monitor's but the pair and stderr: somebody may wait for the end of what it has open.
void become_separate(int pair, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  prctl(PR_SET_NAME, "husk-net");
  dup2(pair, kPair);
  take_outputs();
  close_range(STDERR_FILENO + 1, ~0u, 0);
  // The terminal's signals are for the machine; what the processor raises is ours.
  sigset_t blocked;
  sigfillset(&blocked);
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&blocked, signal);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
}

// The first frame that asks for something; what every machine says at its start is passed over.
std::vector<u8> wait_for_request(pid_t parent) {
  std::vector<u8> frame(size_t{kUserMtu} + 14);
  for (bool first = true;; first = false) {
    pollfd wait{kPair, POLLIN, 0};
    if (poll(&wait, 1, -1) < 0 && errno != EINTR) _exit(0);
    // A machine that ends without a frame is waited for by its user: the end is seen before privileges are given up, without reading anything.
    if (first && (wait.revents & POLLHUP) != 0 && recv(kPair, nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT) == 0) _exit(0);
    if (first) leave_root(parent);
    ssize_t size = recv(kPair, frame.data(), frame.size(), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (size < 0 || (size == 0 && (wait.revents & POLLHUP) != 0)) _exit(0);
    std::span<const u8> received(frame.data(), static_cast<size_t>(size));
    if (judge_frame(received) == FrameUse::forward) return {received.begin(), received.end()};
  }
}

void open_ports(SlirpLoop& slirp, const UserNetworkOptions& options, UserReport& report) {
  for (size_t i = 0; i < options.ports.size() && report.error == 0; ++i) {
    report.error = slirp.publish(options.ports[i], report.host_ports[i]);
    report.failed_port = static_cast<u32>(i);
  }
}

void serve(pid_t parent, const UserNetworkOptions& options, UserReport& report) {
  std::vector<u8> first;
  if (options.ports.empty()) first = wait_for_request(parent);
  SlirpLoop slirp(kPair, options);
  open_ports(slirp, options, report);
  if (report.error != 0) return;
  enter_user_jail(parent);
  if (!options.ports.empty()) send(kPair, &report, sizeof(report), MSG_NOSIGNAL);
  if (first.empty()) {
    slirp.wait_for_guest();
  } else {
    slirp.input(first);
  }
  slirp.run();
}

}  // namespace

void run_user_process(int pair, pid_t parent, const UserNetworkOptions& options) {
  static UserReport report;
  become_separate(pair, parent);
  try {
    serve(parent, options, report);
  } catch (const std::exception& failure) {
    std::string text = "network: " + std::string(failure.what());
    strncpy(report.text, text.c_str(), sizeof(report.text) - 1);
    if (options.ports.empty()) dprintf(STDERR_FILENO, "husk: %s\n", report.text);
  }
  if (!options.ports.empty()) send(kPair, &report, sizeof(report), MSG_NOSIGNAL);
  _exit(1);
}

}  // namespace husk::vmm::net
