// The boot configuration's network, the files of /etc, and rtnetlink's answers.
#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#undef linux

#include <map>
#include <string>
#include <vector>

#include "kernel/linux/netlink_messages.h"
#include "kernel/linux/network_fake_test.h"
#include "kernel/linux/network_settings.h"

namespace husk::linux {
namespace {

using net::IpAddress;

std::string text_of(const IpAddress& address) {
  char text[kAddressText];
  return std::string(address_text(address, text));
}

IpAddress v6(std::initializer_list<u16> groups) {
  IpAddress result;
  size_t at = 0;
  for (u16 group : groups) {
    result.bytes[at++] = static_cast<u8>(group >> 8);
    result.bytes[at++] = static_cast<u8>(group);
  }
  return result;
}

TEST(AddressText, rfc5952_examples) {
  EXPECT_EQ(text_of(IpAddress::v4(192, 0, 2, 255)), "192.0.2.255");
  EXPECT_EQ(text_of(IpAddress{}), "::");
  EXPECT_EQ(text_of(v6({0, 0, 0, 0, 0, 0, 0, 1})), "::1");
  EXPECT_EQ(text_of(v6({0x2001, 0xdb8, 0, 0, 1, 0, 0, 1})), "2001:db8::1:0:0:1");
  EXPECT_EQ(text_of(v6({0x2001, 0, 0, 1, 0, 0, 0, 1})), "2001:0:0:1::1");
  EXPECT_EQ(text_of(v6({0x2001, 0xdb8, 0, 1, 1, 1, 1, 1})), "2001:db8:0:1:1:1:1:1");
  EXPECT_EQ(text_of(v6({0xfe80, 0, 0, 0, 0, 0, 0, 0})), "fe80::");
  EXPECT_EQ(text_of(v6({0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff})), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

class Settings : public testing::Test {
 protected:
  void add(abi::ConfigTag tag, std::string_view value) { abi::append_config(bytes_, tag, value); }
  void add(abi::ConfigTag tag, u8 family, u8 prefix_bits, std::initializer_list<u8> address) {
    abi::NetworkAddress record{family, prefix_bits, {}, {}};
    std::copy(address.begin(), address.end(), record.address);
    add(tag, {reinterpret_cast<const char*>(&record), sizeof(record)});
  }
  std::vector<u8> bytes_;
};

TEST_F(Settings, all_records) {
  add(abi::ConfigTag::network, "\1");
  add(abi::ConfigTag::network_address, 4, 24, {10, 1, 2, 3});
  add(abi::ConfigTag::network_address, 6, 64, {0xfd, 0, 0, 1});
  add(abi::ConfigTag::network_gateway, 4, 0, {10, 1, 2, 1});
  add(abi::ConfigTag::name_server, 4, 0, {10, 1, 2, 2});
  add(abi::ConfigTag::search_domain, "example.org corp");
  add(abi::ConfigTag::host_entry, "10.1.2.9 db");
  NetworkSettings settings = decode_network(bytes_);
  EXPECT_EQ(settings.mode, abi::NetworkMode::manual);
  ASSERT_EQ(settings.address_count, 2u);
  EXPECT_EQ(text_of(settings.addresses[0].address), "10.1.2.3");
  EXPECT_EQ(settings.addresses[1].prefix_bits, 64);
  EXPECT_EQ(text_of(settings.gateways[0]), "10.1.2.1");
  EXPECT_TRUE(settings.gateways[1].is_any());
  String names, hosts;
  ASSERT_TRUE(write_resolv_conf(names, {settings.name_servers, settings.name_server_count}, settings.search_domain).ok());
  EXPECT_EQ(names.view(), "search example.org corp\nnameserver 10.1.2.2\n");
  ASSERT_TRUE(write_hosts(hosts, settings, "box", &settings.addresses[0].address).ok());
  EXPECT_NE(hosts.view().find("127.0.0.1\tlocalhost\n"), std::string_view::npos);
  EXPECT_NE(hosts.view().find("\n10.1.2.9 db\n10.1.2.3\tbox\n"), std::string_view::npos) << hosts.view();
}

TEST_F(Settings, what_makes_no_sense_is_left_out) {
  add(abi::ConfigTag::network, "\7");
  add(abi::ConfigTag::network, "xx");
  add(abi::ConfigTag::network_address, 4, 33, {10, 1, 2, 3});
  add(abi::ConfigTag::network_address, 5, 8, {10, 1, 2, 3});
  add(abi::ConfigTag::network_address, 4, 8, {0, 0, 0, 0});
  add(abi::ConfigTag::network_address, 4, 8, {224, 0, 0, 1});
  add(abi::ConfigTag::network_address, 6, 64, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4});
  add(abi::ConfigTag::network_address, "short");
  add(abi::ConfigTag::search_domain, "a\nnameserver 6.6.6.6");
  add(abi::ConfigTag::host_entry, "1.2.3.4 a\n5.6.7.8 b");
  for (u8 i = 1; i < 9; ++i) add(abi::ConfigTag::name_server, 4, 0, {1, 1, 1, i});
  NetworkSettings settings = decode_network(bytes_);
  EXPECT_EQ(settings.mode, abi::NetworkMode::none);
  EXPECT_EQ(settings.address_count, 0u);
  EXPECT_EQ(settings.name_server_count, u32{NetworkSettings::kNamesMax});
  EXPECT_TRUE(settings.search_domain.empty());
  String hosts;
  ASSERT_TRUE(write_hosts(hosts, settings, "box", nullptr).ok());
  EXPECT_EQ(hosts.view().find("5.6.7.8"), std::string_view::npos);
}

// --- netlink --------------------------------------------------------------------------------------------------------------------

struct Message {
  nlmsghdr header;
  std::vector<u8> body;
  std::string attribute(size_t body_size, u16 type) const {
    for (size_t at = align_up(body_size, 4); at + sizeof(rtattr) <= body.size();) {
      rtattr head;
      memcpy(&head, body.data() + at, sizeof(head));
      if (head.rta_len < sizeof(head) || at + head.rta_len > body.size()) break;
      if (head.rta_type == type)
        return std::string(body.begin() + static_cast<long>(at + sizeof(head)), body.begin() + static_cast<long>(at + head.rta_len));
      at += align_up(head.rta_len, 4);
    }
    return "none";
  }
};

class Netlink : public testing::Test {
 protected:
  std::vector<Message> ask(u16 type, u16 flags, std::vector<u8> body) {
    nlmsghdr header{static_cast<u32>(sizeof(nlmsghdr) + body.size()), type, flags, 77, 0};
    std::vector<u8> request(reinterpret_cast<u8*>(&header), reinterpret_cast<u8*>(&header) + sizeof(header));
    request.insert(request.end(), body.begin(), body.end());
    return answers(request);
  }
  std::vector<Message> answers(const std::vector<u8>& request) {
    NetlinkAnswer answer;
    EXPECT_TRUE(answer_netlink(stack_, request, 42, answer).ok());
    std::vector<Message> result;
    for (Vec<u8>& datagram : answer.datagrams) {
      EXPECT_LE(datagram.size(), NetlinkAnswer::kDatagramMax);
      for (size_t at = 0; at < datagram.size();) {
        Message message;
        memcpy(&message.header, datagram.data() + at, sizeof(nlmsghdr));
        EXPECT_LE(at + message.header.nlmsg_len, datagram.size());
        EXPECT_EQ(message.header.nlmsg_pid, 42u);
        EXPECT_EQ(message.header.nlmsg_seq, 77u);
        message.body.assign(datagram.data() + at + sizeof(nlmsghdr), datagram.data() + at + message.header.nlmsg_len);
        at += align_up(message.header.nlmsg_len, 4);
        result.push_back(message);
      }
    }
    return result;
  }
  static int error_of(const Message& message) {
    EXPECT_EQ(message.header.nlmsg_type, NLMSG_ERROR);
    int code;
    memcpy(&code, message.body.data(), sizeof(code));
    return code;
  }
  FakeStack stack_;
};

TEST_F(Netlink, links_are_dumped_as_glibc_asks) {
  auto all = ask(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, {0});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].header.nlmsg_type, RTM_NEWLINK);
  EXPECT_EQ(all[0].attribute(sizeof(ifinfomsg), IFLA_IFNAME), std::string("lo\0", 3));
  EXPECT_EQ(all[1].attribute(sizeof(ifinfomsg), IFLA_ADDRESS), std::string("\2\0\0\0\0\11", 6));
  EXPECT_EQ(all[2].header.nlmsg_type, NLMSG_DONE);
  EXPECT_TRUE(all[1].header.nlmsg_flags & NLM_F_MULTI);
}

TEST_F(Netlink, one_link_by_index) {
  ifinfomsg body{};
  body.ifi_index = 2;
  std::vector<u8> bytes(reinterpret_cast<u8*>(&body), reinterpret_cast<u8*>(&body) + sizeof(body));
  auto one = ask(RTM_GETLINK, NLM_F_REQUEST, bytes);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].attribute(sizeof(ifinfomsg), IFLA_IFNAME), std::string("eth0\0", 5));
  bytes[4] = 9;
  EXPECT_EQ(error_of(ask(RTM_GETLINK, NLM_F_REQUEST, bytes)[0]), -ENODEV);
}

TEST_F(Netlink, addresses_by_family) {
  auto all = ask(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, {0});
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[1].attribute(sizeof(ifaddrmsg), IFA_LOCAL), std::string("\12\1\2\3"));
  EXPECT_EQ(all[1].attribute(sizeof(ifaddrmsg), IFA_BROADCAST), std::string("\12\1\2\377"));
  EXPECT_EQ(ask(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, {10}).size(), 3u);
}

TEST_F(Netlink, routes_and_the_route_to_one_address) {
  auto all = ask(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, {2});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1].attribute(sizeof(rtmsg), RTA_GATEWAY), std::string("\12\1\2\1"));
  rtmsg body{};
  body.rtm_family = 2;
  std::vector<u8> bytes(reinterpret_cast<u8*>(&body), reinterpret_cast<u8*>(&body) + sizeof(body));
  for (int byte : {8, 0, int{RTA_DST}, 0, 8, 8, 8, 8}) bytes.push_back(static_cast<u8>(byte));
  auto one = ask(RTM_GETROUTE, NLM_F_REQUEST, bytes);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].attribute(sizeof(rtmsg), RTA_GATEWAY), std::string("\12\1\2\1"));
  EXPECT_EQ(one[0].attribute(sizeof(rtmsg), RTA_PREFSRC), std::string("\12\1\2\3"));
}

TEST_F(Netlink, changes_are_refused_and_noise_is_survived) {
  EXPECT_EQ(error_of(ask(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK, std::vector<u8>(8))[0]), -EPERM);
  EXPECT_EQ(error_of(ask(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, {0})[0]), -EOPNOTSUPP);
  EXPECT_TRUE(answers({}).empty());
  EXPECT_TRUE(answers(std::vector<u8>(200, 0xff)).empty());
  EXPECT_EQ(error_of(ask(RTM_GETROUTE, NLM_F_REQUEST, {2, 3, 4})[0]), -EINVAL);
}

TEST_F(Netlink, each_answer_is_acknowledged_in_whatever_datagram_it_is) {
  struct {
    nlmsghdr header{sizeof(nlmsghdr) + sizeof(ifinfomsg), RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, 77, 0};
    ifinfomsg body{};
  } one;
  one.body.ifi_index = 2;
  std::vector<u8> many;
  constexpr size_t kRequests = 200;  // several datagrams of answers
  for (size_t i = 0; i < kRequests; ++i) many.insert(many.end(), reinterpret_cast<u8*>(&one), reinterpret_cast<u8*>(&one) + sizeof(one));
  auto all = answers(many);
  ASSERT_EQ(all.size(), 2 * kRequests);
  for (size_t i = 0; i < all.size(); i += 2) {
    EXPECT_EQ(all[i].header.nlmsg_type, RTM_NEWLINK);
    EXPECT_EQ(error_of(all[i + 1]), 0);
  }
}

}  // namespace
}  // namespace husk::linux
