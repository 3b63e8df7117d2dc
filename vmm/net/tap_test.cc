// The capture file, read back; and TAP interfaces where the test may make them (root with /dev/net/tun), in a network name space of its own.
#include "vmm/net/tap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "abi/virtio/mmio.h"
#include "abi/virtio/net.h"
#include "vmm/monitor_error.h"
#include "vmm/net/pcap.h"

namespace husk::vmm::net {
namespace {

std::string content(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return "";
  std::string bytes(static_cast<size_t>(status.st_size), 0);
  if (pread(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return "";
  return bytes;
}
template <typename T>
T at(const std::string& bytes, size_t offset) {
  T value{};
  if (offset + sizeof(T) <= bytes.size()) memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

TEST(Pcap, file_has_a_header_and_a_record_for_each_frame) {
  host::FileDescriptor file(memfd_create("capture", MFD_CLOEXEC));
  std::string large(70000, 'x');
  {
    PcapWriter writer(file.get());
    char head[] = "head", tail[] = "tail";
    iovec parts[] = {{head, 4}, {tail, 4}};
    writer.add(parts);
    iovec whole{large.data(), large.size()};
    writer.add({&whole, 1});
  }
  std::string bytes = content(file.get());
  ASSERT_EQ(bytes.size(), 24 + 16 + 8 + 16 + 65535u);
  EXPECT_EQ(at<u32>(bytes, 0), 0xa1b23c4du);
  EXPECT_EQ(at<u16>(bytes, 4), 2);
  EXPECT_EQ(at<u16>(bytes, 6), 4);
  EXPECT_EQ(at<u32>(bytes, 16), 65535u);
  EXPECT_EQ(at<u32>(bytes, 20), 1u);
  EXPECT_LT(at<u32>(bytes, 28), 1000000000u);
  EXPECT_EQ(at<u32>(bytes, 32), 8u);
  EXPECT_EQ(at<u32>(bytes, 36), 8u);
  EXPECT_EQ(bytes.substr(40, 8), "headtail");
  EXPECT_EQ(at<u32>(bytes, 56), 65535u);
  EXPECT_EQ(at<u32>(bytes, 60), 70000u);
}

TEST(Pcap, reader_that_does_not_read_costs_frames_of_the_capture_only) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
  host::FileDescriptor reader(pipes[0]), writer_end(pipes[1]);
  PcapWriter writer(writer_end.get());
  std::string frame(60000, 'x');
  iovec part{frame.data(), frame.size()};
  for (int i = 0; i < 200; ++i) writer.add({&part, 1});
  EXPECT_GT(writer.dropped(), 0u);
  // What is there, is whole.
  std::string bytes, piece(1 << 18, 0);
  for (ssize_t count; (count = read(reader.get(), piece.data(), piece.size())) > 0; writer.flush())
    bytes.append(piece, 0, static_cast<size_t>(count));
  EXPECT_EQ((bytes.size() - 24) % (16 + frame.size()), 0u);
}

// In a thread with a network name space of its own; false if the host does not allow that.
bool in_own_network(const std::function<void()>& work) {
  bool possible = false;
  std::thread([&] {
    possible = geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0 && unshare(CLONE_NEWNET) == 0;
    if (possible) work();
  }).join();
  return possible;
}
std::string refusal(const std::string& name) {
  try {
    open_tap(name);
  } catch (const MonitorError& error) {
    return error.what();
  }
  return "";
}

TEST(Tap, names_that_no_interface_can_have_are_refused) {
  EXPECT_NE(refusal("a-name-that-is-too-long"), "");
  EXPECT_NE(refusal("a%d"), "");
  EXPECT_NE(refusal("a/b"), "");
}

TEST(Tap, new_interfaces_have_a_subnet_each) {
  bool possible = in_own_network([] {
    TapResult first = open_tap(""), second = open_tap("");
    EXPECT_EQ(first.name, "husk0");
    EXPECT_EQ(first.host_address, "10.83.0.1");
    EXPECT_EQ(first.guest_address, "10.83.0.2");
    EXPECT_EQ(first.prefix_bits, 30);
    EXPECT_EQ(first.mtu, 1500);
    EXPECT_EQ(second.host_address, "10.83.0.5");
    set_offloads(first.fd.get(), abi::virtio::feature_bit(abi::virtio::kNetFeatureGuestChecksum));
  });
  if (!possible) GTEST_SKIP() << "needs root and /dev/net/tun";
}

TEST(Tap, subnet_that_a_route_leads_to_is_not_taken) {
  bool possible = in_own_network([] {
    ASSERT_EQ(system("ip link set lo up && ip route add 10.83.0.0/30 dev lo"), 0);
    TapResult made = open_tap("");
    EXPECT_EQ(made.name, "husk0");
    EXPECT_EQ(made.host_address, "10.83.1.133");
  });
  if (!possible) GTEST_SKIP() << "needs root and /dev/net/tun";
}

TEST(Tap, refusals_say_what_to_do) {
  bool possible = in_own_network([] {
    EXPECT_EQ(refusal("lo").substr(0, 24), "lo is not a TAP interfac");
    TapResult used = open_tap("");
    EXPECT_NE(refusal(used.name).find("another program uses it"), std::string::npos);
    EXPECT_EQ(refusal("nowhere0").substr(0, 38), "there is no network interface nowhere0");
  });
  if (!possible) GTEST_SKIP() << "needs root and /dev/net/tun";
}

}  // namespace
}  // namespace husk::vmm::net
