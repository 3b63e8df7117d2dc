// The network of this machine: owns its one net::Stack, which is made, and whose device is started, when the first socket that needs it is made.
//
// A program without sockets pays nothing but a few files in /etc. Kernel context on the one vCPU, not from interrupts.
#pragma once
#undef linux

#include "base/result.h"
#include "kernel/net/stack.h"

namespace husk::linux {

// Boot's network device, if there is one; it lives for ever.
class LazyNetDevice {
 public:
  // Once, at the first use; may block. What the driver does when the machine is about to sleep it does as a sched::Poller of its own.
  virtual Result<packet::NetDevice*> start() = 0;

 protected:
  ~LazyNetDevice() = default;
};

// Boot, after linux::init(). Null: no device, but the loopback.
void init_network(LazyNetDevice* device);
// Writes /etc/resolv.conf, /etc/hosts and /etc/hostname if the boot configuration has a network. Before the program starts; on a thread that may block.
void write_network_files();

Result<net::Stack*> network();  // starts it if need be
// Takes what has arrived, sends what is to be sent. After each call on a socket that may have made output, and before one says that there is nothing.
void network_run();
// The same, but only if TCP has something to send: after a call that seldom makes output.
void network_run_if_due();
// The program is over: closes all connections, and gives what was sent a few seconds to arrive.
void network_finish();
// Before the first packet leaves for another machine: with NetworkMode::automatic, waits until there is an address (at most 10 s). EINTR.
Result<void> network_wait_configured(const net::IpAddress& destination);

}  // namespace husk::linux
