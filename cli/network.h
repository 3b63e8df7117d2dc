// The network of one run: opens what the options ask for, and tells the guest about it.
//
// In the order of the calls: constructor (before any thread and before rights are given up: forks, opens the TAP interface), configuration,
// open() (as late as possible: waits for the published ports), close() when the machine is off.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cli/network_options.h"
#include "host/file_descriptor.h"
#include "vmm/monitor.h"
#include "vmm/net/tap.h"

namespace husk::cli {

class MachineNetwork {
 public:
  // Throws Failure or MonitorError, as the others do.
  explicit MachineNetwork(const NetworkOptions& options);
  // Records for abi/boot_config.h.
  void append_configuration(std::vector<u8>& out) const;
  // Nothing with --net none. Says on stderr what only now is known: ports and addresses that were chosen. `name` is the machine's.
  std::optional<vmm::NetworkDevice> open(const std::string& name);
  void close();

 private:
  bool made_tap() const {
    return options_.kind == NetworkOptions::Kind::tap && !tap_.guest_address.empty() && options_.addresses.empty() && !options_.dhcp;
  }

  const NetworkOptions& options_;
  MacAddress mac_{};
  std::unique_ptr<vmm::net::UserNetwork> user_;
  vmm::net::TapResult tap_;
  host::FileDescriptor pcap_;
};

}  // namespace husk::cli
