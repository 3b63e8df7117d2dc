// The command's own logic: words into options, options into a configuration.
#include <gtest/gtest.h>
#include <stdlib.h>

#include "abi/boot_config.h"
#include "cli/configuration.h"
#include "cli/failure.h"
#include "cli/program.h"

namespace husk::cli {
namespace {

TEST(Options, sizes) {
  EXPECT_EQ(parse_size("4M", "-m"), 4 * kMiB);
  EXPECT_EQ(parse_size("1g", "-m"), kGiB);
  EXPECT_EQ(parse_size("512KiB", "-m"), 512 * kKiB);
  EXPECT_EQ(parse_size("4096", "-m"), 4096u);
  for (const char* bad : {"", "M", "1.5G", "-1M", "4X", "4MM", "99999999999999G", "4 M"}) EXPECT_THROW(parse_size(bad, "-m"), Failure) << bad;
}

TEST(Options, durations) {
  EXPECT_EQ(parse_duration_ns("10", "-t"), 10'000'000'000u);
  EXPECT_EQ(parse_duration_ns("500ms", "-t"), 500'000'000u);
  for (const char* bad : {"", "x", "-1", "1h", "nan"}) EXPECT_THROW(parse_duration_ns(bad, "-t"), Failure) << bad;
}

TEST(Options, environment_as_docker_reads_it) {
  setenv("HUSK_TEST_HOST", "from host", 1);
  std::vector<std::string> out;
  for (const char* entry : {"A=1", "HUSK_TEST_HOST", "HUSK_TEST_MISSING", "A=2", "EMPTY="}) add_environment(out, entry);
  EXPECT_EQ(out, (std::vector<std::string>{"HUSK_TEST_HOST=from host", "A=2", "EMPTY="}));
  EXPECT_THROW(add_environment(out, "=x"), Failure);
}

std::vector<std::string> texts(const std::vector<u8>& config, abi::ConfigTag tag) {
  std::vector<std::string> out;
  abi::ConfigReader reader(config);
  while (auto record = reader.next()) {
    if (record->tag == tag) out.emplace_back(record->text());
  }
  return out;
}

std::string publish_text(const std::string& text) {
  std::string out;
  for (const auto& port : parse_publish(text)) {
    out += port.host_address + " " + std::to_string(port.host_port) + " " + std::to_string(port.guest_port) + (port.udp ? " udp;" : ";");
  }
  return out;
}

TEST(Network, published_ports_as_docker_writes_them) {
  EXPECT_EQ(publish_text("8080:80"), "0.0.0.0 8080 80;");
  EXPECT_EQ(publish_text("127.0.0.1:53:5353/udp"), "127.0.0.1 53 5353 udp;");
  EXPECT_EQ(publish_text("80"), "0.0.0.0 0 80;");
  EXPECT_EQ(publish_text("0:80/tcp"), "0.0.0.0 0 80;");
  EXPECT_EQ(publish_text("127.0.0.1::80"), "127.0.0.1 0 80;");
  EXPECT_EQ(publish_text("[::1]:8080:80"), "::1 8080 80;");
  EXPECT_EQ(publish_text("8000-8001:9000-9001"), "0.0.0.0 8000 9000;0.0.0.0 8001 9001;");
  for (const char* bad : {"", ":", "x", "0", "65536", "80:0", "80:80/sctp", "1:2:3:4", "8000-8001:80", "9-8", "-1", "::1:80:80", "[127.0.0.1]:80:80",
                          "80:", "localhost:80:80", "0-1:80-81", "80/", "1.2.3:80:80"}) {
    EXPECT_THROW(parse_publish(bad), Failure) << bad;
  }
}

TEST(Network, words_become_options) {
  NetworkOptions options = parse_network({.net = "tap=tap7",
                                          .mac = "02:00:00:00:00:2a",
                                          .mtu = "9000",
                                          .ip = {"10.1.2.3/16,gateway=10.1.0.1", "fd00::7"},
                                          .dns = {"1.1.1.1"},
                                          .dns_search = {"a.b", "c"},
                                          .add_host = {"db:10.0.0.9", "six:[fd00::1]", "me:host-gateway"}});
  EXPECT_EQ(options.kind, NetworkOptions::Kind::tap);
  EXPECT_EQ(options.interface, "tap7");
  EXPECT_EQ(options.mac->back(), 0x2a);
  EXPECT_EQ(*options.mtu, 9000);
  ASSERT_EQ(options.addresses.size(), 2u);
  EXPECT_EQ(options.addresses[0].prefix_bits, 16);
  EXPECT_EQ(options.addresses[1].prefix_bits, 64);
  EXPECT_EQ(address_text(options.gateways.at(0)), "10.1.0.1");
  EXPECT_EQ(options.search_domains, "a.b c");
  EXPECT_EQ(options.host_entries, (std::vector<std::string>{"10.0.0.9 db", "fd00::1 six", "host-gateway me"}));
  EXPECT_EQ(parse_network({}).kind, NetworkOptions::Kind::user);
  EXPECT_TRUE(parse_network({.net = "user,host-loopback=on"}).host_loopback);
}

TEST(Network, nonsense_is_named) {
  const NetworkWords cases[] = {{.net = "host"},
                                {.net = "bridge"},
                                {.net = "tap="},
                                {.net = "x"},
                                {.mac = "1:2"},
                                {.mac = "01:00:00:00:00:00"},
                                {.mac = "00:00:00:00:00:00"},
                                {.mtu = "1279"},
                                {.mtu = "65521"},
                                {.mtu = "x"},
                                {.dns = {"name"}},
                                {.dns_search = {"a b"}},
                                {.add_host = {"name"}},
                                {.add_host = {":1.2.3.4"}},
                                {.add_host = {"a:b"}},
                                {.ip = {"10.0.0.1"}},
                                {.net = "tap", .ip = {"10.0.0.1/33"}},
                                {.net = "tap", .ip = {"10.0.0.1/24,gateway=fd00::1"}},
                                {.net = "tap", .ip = {"10.0.0.1/24,gw=10.0.0.2"}},
                                {.net = "tap", .ip = {"300.0.0.1"}},
                                {.net = "tap", .publish = {"80:80"}},
                                {.net = "none", .publish = {"80:80"}},
                                {.net = "none", .pcap = "f"}};
  for (const NetworkWords& words : cases) EXPECT_THROW(parse_network(words), Failure) << words.net << words.mac << words.mtu;
}

TEST(Configuration, options_overlay_the_image) {
  std::vector<u8> image;
  abi::append_config(image, abi::ConfigTag::program, "/bin/x");
  abi::append_config(image, abi::ConfigTag::argument, "x");
  abi::append_config(image, abi::ConfigTag::argument, "default");
  abi::append_config(image, abi::ConfigTag::environment, "A=image");
  RunOptions options;
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::image), abi::ConfigTag::argument), (std::vector<std::string>{"x", "default"}));
  options.arguments = {"one", ""};
  options.environment = {"A=user"};
  auto config = make_configuration(image, options, TargetKind::image);
  image.clear();
  EXPECT_EQ(texts(config, abi::ConfigTag::program), (std::vector<std::string>{"/bin/x"}));
  EXPECT_EQ(texts(config, abi::ConfigTag::argument), (std::vector<std::string>{"x", "one", ""}));
  EXPECT_EQ(texts(config, abi::ConfigTag::environment)[0], "A=user");
  abi::append_config(image, abi::ConfigTag::argument, "/usr/bin/x");
  options.target = "./x";
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::program), abi::ConfigTag::argument), (std::vector<std::string>{"./x", "one", ""}));
  abi::append_config(image, abi::ConfigTag::argument, "/srv/script");
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::program), abi::ConfigTag::argument),
            (std::vector<std::string>{"/usr/bin/x", "/srv/script", "one", ""}));
}

int status_of(const std::string& word) {
  try {
    find_target(word);
    return 0;
  } catch (const Failure& failure) {
    return failure.status();
  }
}

TEST(Program, exit_statuses_of_what_cannot_be_run) {
  EXPECT_EQ(status_of("husk-no-such-program"), 127);
  EXPECT_EQ(status_of("/no/such/file"), 127);
  EXPECT_EQ(status_of("/"), 126);
  EXPECT_EQ(status_of("/etc/passwd"), 126);
  EXPECT_EQ(status_of(""), 127);
  EXPECT_EQ(status_of("ls"), 0);
}

}  // namespace
}  // namespace husk::cli
