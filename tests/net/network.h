// Machines on a simulated ethernet: each has a real net::Stack; actors are their programs. Nothing happens in real time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernel/net/stack.h"
#include "tests/net/faulty_device.h"
#include "tests/net/lan.h"

namespace husk::simulation {

// A program. step() does what can be done now without blocking.
class Actor {
 public:
  virtual ~Actor() = default;
  virtual bool step(u64 now_ns) = 0;  // true: something was done, others should be asked again
  virtual u64 wake_ns() const { return kNever; }
  virtual bool done() const = 0;
};

struct HostOptions {
  Offloads offloads;
  Conditions conditions;
  u16 mtu = 1500;
  Faults faults;
  net::Stack::Limits limits;
  bool addresses = true;  // 10.0.0.N/24 and fd00::N/64, N = 1, 2, ... in order
};

class Network;

class Host final : public net::Environment {
 public:
  u64 now_ns() override;
  void random(void* to, size_t size) override;
  void names_changed() override { ++names_changed_count; }

  net::Stack& stack() { return *stack_; }
  Port& port() { return port_; }
  FaultyDevice& device() { return device_; }
  net::IpAddress address(net::Family family) const;
  u32 interface() const { return interface_; }
  u32 names_changed_count = 0;

 private:
  friend class Network;
  Host(Network& network, u32 number, const HostOptions& options);
  Network& network_;
  u32 number_;
  Port& port_;
  FaultyDevice device_;
  Random random_;
  u32 interface_ = 0;
  Owned<net::Stack> stack_;
};

class Network {
 public:
  explicit Network(u64 seed);
  Host& add_host(const HostOptions& options = {});
  template <typename T, typename... Args>
  T& add(Args&&... args) {
    auto made = std::make_unique<T>(std::forward<Args>(args)...);
    T& result = *made;
    actors_.push_back(std::move(made));
    return result;
  }
  Lan& lan() { return lan_; }
  Random& random() { return random_; }
  u64 now_ns() const { return lan_.now_ns(); }

  // Lets everything happen until the condition holds or so much virtual time has passed; false then, or when time cannot go on: `trouble` says why.
  bool run_until(const std::function<bool()>& condition, u64 limit_ns);
  void run_for(u64 ns) {
    run_until([] { return false; }, ns);
  }
  // Until addresses may be used: duplicate address detection takes a second (RFC 4862 §5.4).
  void run_until_configured() { run_for(3 * kSecond); }
  // All actors are done.
  bool run_to_end(u64 limit_ns);
  void forget_finished_actors();
  size_t actors_left() const;  // not done
  std::string trouble;

 private:
  bool settle();  // runs all until nothing moves at this instant; false: it never ends
  u64 next_ns();

  Random random_;
  Lan lan_;
  std::vector<std::unique_ptr<Host>> hosts_;
  std::vector<std::unique_ptr<Actor>> actors_;
};

// HUSK_NET_SEEDS runs of a test with different chances (`count` if it is not set), beginning with HUSK_NET_FIRST_SEED (1); ends at the first failure, which it
// names.
void for_seeds(u32 count, const std::function<void(u64 seed)>& body);
// Bytes that the program holds on the heap now (0 without the address sanitizer).
size_t heap_bytes();

}  // namespace husk::simulation
