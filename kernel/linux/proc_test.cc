// The texts of /proc and /sys, read through their inodes, with a process that consists of an address space and two files.
#include "kernel/linux/proc.h"

#include <cpuid.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <set>
#include <sstream>
#include <string>

#include "kernel/linux/linux.h"
#include "kernel/linux/machine_name.h"
#include "kernel/linux/network.h"
#include "kernel/linux/network_fake_test.h"
#include "kernel/linux/task.h"
#include "kernel/log.h"
#include "kernel/mem/frames.h"
#include "kernel/random.h"
#include "platform/fake/fake.h"

namespace husk {
void log(LogLevel, const char*, ...) {}
void random_bytes(void* to, size_t size) { memset(to, 0x5a, size); }

namespace linux {

// What task.cc and its neighbours give in the machine.
Process::Process() = default;
Process::~Process() = default;
u64 Process::run_time_ns() const { return 1'230'000'000; }
namespace {
Process* the_process;
vfs::Tree* the_tree;
}  // namespace
Process& init_process() { return *the_process; }
Task* find_task(int tid) { return the_process->tasks.front()->tid == tid ? the_process->tasks.front() : nullptr; }
vfs::Tree& tree() { return *the_tree; }
const char* get_host_name() { return "box"; }
Result<net::Stack*> network() {
  static FakeStack stack;
  return &stack;
}
const char* get_domain_name() { return "(none)"; }

namespace {

struct Named final : vfs::File {
  Result<String> describe() override { return String::from("pipe:[7]"); }
};
struct Names final : vfs::DirectoryVisitor {
  bool visit(const vfs::DirectoryEntry& entry, u64 next) override {
    if (seen.size() == limit) return false;
    EXPECT_TRUE(seen.insert(std::string(entry.name)).second) << "twice: " << entry.name;
    position = next;
    return true;
  }
  std::set<std::string> seen;
  size_t limit = 1000;
  u64 position = 0;
};

class Proc : public testing::Test {
 protected:
  void SetUp() override {
    platform::fake::reset();
    mem::init_frames(platform::fake::boot_info());
    process_ = make_ref<Process>().release();
    the_process = process_.get();
    process_->space = mem::AddressSpace::create(0, 0x7ffff0000000, false).release();
    process_->files = make_ref<FdTable>().release();
    process_->file_context = make_ref<FileContext>().release();
    process_->actions = make_ref<SignalActions>().release();
    process_->actions->of[2].handler = 1;
    process_->executable = String::from("/bin/program").release();
    process_->task_count = 1;
    for (ResourceLimit& limit : process_->limits) limit = {0, 0};
    task_ = make_ref<Task>().release();
    task_->tid = 1;
    strcpy(task_->name, "program");
    process_->tasks.push_back(task_.get());
    tree_ = vfs::Tree::create(make_proc().release()).release();
    the_tree = tree_.get();
    process_->file_context->root = process_->file_context->working_directory = tree_->root();
  }
  void TearDown() override {
    task_->unlink();
    process_->file_context = nullptr;
    tree_ = nullptr;
    process_->files->close_all();
    process_ = nullptr;
  }
  std::string read(std::string_view path) {
    auto file = tree_->open(tree_->root(), path, 0, 0);
    if (!file.ok()) return "error " + std::to_string(file.error().code());
    char bytes[65536];
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(bytes, sizeof(bytes));
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    auto size = (*file)->read(buffer, nullptr);
    return size.ok() ? std::string(bytes, *size) : "error " + std::to_string(size.error().code());
  }
  std::string link(std::string_view path) {
    auto at = tree_->resolve(tree_->root(), path, vfs::kNoFollow);
    return at.ok() ? std::string(at->inode()->read_link()->view()) : "error";
  }
  std::set<std::string> list(std::string_view path, size_t step) {
    auto file = tree_->open(tree_->root(), path, 0200000, 0).release();
    std::set<std::string> all;
    for (;;) {
      Names names;
      names.limit = step;
      EXPECT_TRUE(file->read_directory(names).ok());
      if (names.seen.empty()) return all;
      for (auto& name : names.seen) EXPECT_TRUE(all.insert(name).second) << name;
    }
  }
  u64 map(u64 at, u64 length, int protection, const char* label) {
    mem::MapRequest r{.address = at, .length = length, .protection = static_cast<u32>(protection)};
    r.placement = mem::MapRequest::Placement::fixed;
    r.label = label;
    return process_->space->map(r).release();
  }

  Ref<Process> process_;
  Ref<Task> task_;
  Owned<vfs::Tree> tree_;
};

TEST_F(Proc, maps_have_the_columns_that_programs_parse) {
  map(0x555555554000, 0x2000, PROT_READ | PROT_WRITE, "[heap]");
  map(0x7ffffffde000, 0x10000, PROT_READ | PROT_WRITE, "[stack]");
  map(0x7fff00000000, 0x1000, PROT_NONE, nullptr);
  EXPECT_EQ(read("/1/maps"),
            "555555554000-555555556000 rw-p 00000000 00:00 0                          [heap]\n"
            "7fff00000000-7fff00001000 ---p 00000000 00:00 0 \n"
            "7ffffffde000-7ffffffee000 rw-p 00000000 00:00 0                          [stack]\n");
  ASSERT_TRUE(process_->space->fault(0x555555554000, mem::Access::write, 0).ok());
  EXPECT_NE(read("/1/smaps").find("Rss:                   8 kB\n"), std::string::npos) << read("/1/smaps");
  EXPECT_NE(read("/1/smaps_rollup").find("Anonymous:             8 kB\n"), std::string::npos);
  EXPECT_EQ(read("/1/statm"), "19 2 0 0 0 18 0\n");
}

TEST_F(Proc, stat_has_52_fields) {
  std::istringstream text(read("/1/stat"));
  std::string word;
  int count = 0;
  for (; text >> word; ++count) {
    EXPECT_TRUE(count != 1 || word == "(program)") << word;
    EXPECT_TRUE(count != 13 || word == "123") << word;
  }
  EXPECT_EQ(count, 52);
  EXPECT_EQ(read("/1/task/1/stat").substr(0, 12), "1 (program) ");
}

TEST_F(Proc, status_tells_memory_and_signals) {
  std::string text = read("/1/status");
  for (const char* line : {"Name:\tprogram\n", "Pid:\t1\n", "Threads:\t1\n", "SigIgn:\t0000000000000002\n", "VmRSS:\t       0 kB\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_NE(read("/1/limits").find("Max open files            0                    0                    files     \n"), std::string::npos);
}

TEST_F(Proc, folders_list_each_entry_once_in_any_steps) {
  process_->files->install(Ref<vfs::File>(make_ref<Named>().release()), false, 0).release();
  process_->files->install(Ref<vfs::File>(make_ref<Named>().release()), false, 5).release();
  EXPECT_EQ(list("/1/fd", 1), (std::set<std::string>{".", "..", "0", "5"}));
  EXPECT_EQ(list("/1/task", 7), (std::set<std::string>{".", "..", "1"}));
  for (size_t step : {1, 3, 100}) {
    auto names = list("/", step);
    for (const char* name : {".", "..", "1", "meminfo", "self", "sys"}) EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_EQ(link("/1/fd/5"), "pipe:[7]");
  EXPECT_EQ(link("/1/exe"), "/bin/program");
  EXPECT_EQ(link("/1/cwd"), "/");
  EXPECT_EQ(read("/1/fdinfo/5").substr(0, 6), "pos:\t0");
  EXPECT_EQ(read("/1/fd/6"), "error 2");
  EXPECT_EQ(read("/2/maps"), "error 2");
  EXPECT_EQ(read("/01/maps"), "error 2");
}

TEST_F(Proc, machine_texts) {
  EXPECT_EQ(read("/meminfo").substr(0, 28), "MemTotal:          65536 kB\n");
  EXPECT_NE(read("/cpuinfo").find(" sse2 "), std::string::npos) << read("/cpuinfo");
  EXPECT_NE(read("/stat").find("cpu0 "), std::string::npos);
  EXPECT_EQ(read("/sys/kernel/hostname"), "box\n");
  EXPECT_EQ(read("/sys/kernel/osrelease"), std::string(kKernelRelease) + "\n");
  EXPECT_EQ(read("/sys/kernel/random/uuid"), "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a\n");
  EXPECT_EQ(read("/sys/vm/overcommit_memory"), "1\n");
  EXPECT_EQ(read("/mounts").substr(0, 10), "overlay / ");
}

TEST_F(Proc, network) {
  EXPECT_NE(read("/net/dev").find("  eth0:       0       5 "), std::string::npos) << read("/net/dev");
  EXPECT_NE(read("/net/tcp").find("   0: 00000000:18EB 00000000:0000 0A "), std::string::npos) << read("/net/tcp");
  EXPECT_NE(read("/net/tcp6").find("   0: 00000000000000000000000000000000:0050 "), std::string::npos) << read("/net/tcp6");
  EXPECT_NE(read("/1/net/route").find("eth0\t00000000\t0102010A\t0003\t0\t0\t0\t00000000\t"), std::string::npos) << read("/net/route");
  EXPECT_NE(read("/net/if_inet6").find("00000000000000000000000000000001 01 80 10 80       lo\n"), std::string::npos);
  EXPECT_NE(read("/net/arp").find("10.1.2.1         0x1         0x2         02:00:00:00:00:01     *        eth0\n"), std::string::npos);
  EXPECT_NE(read("/net/snmp").find("\nTcp: 0 0 0 0 0 7 0 "), std::string::npos) << read("/net/snmp");
  EXPECT_EQ(read("/sys/net/core/somaxconn"), "4096\n");
}

TEST_F(Proc, sys) {
  tree_ = nullptr;
  tree_ = vfs::Tree::create(make_sys().release()).release();
  the_tree = tree_.get();
  EXPECT_EQ(read("/devices/system/cpu/online"), "0\n");
  EXPECT_EQ(read("/kernel/mm/transparent_hugepage/hpage_pmd_size"), "2097152\n");
  u32 intel = 0, amd = 0, b, c, d;  // what this processor tells of its first cache; some hypervisors hide all of them
  __get_cpuid_count(4, 0, &intel, &b, &c, &d);
  __get_cpuid_count(0x8000001d, 0, &amd, &b, &c, &d);
  EXPECT_EQ(read("/devices/system/cpu/cpu0/cache/index0/level"), ((intel | amd) & 31) != 0 ? "1\n" : "error 2");
  EXPECT_EQ(list("/class/net", 1), (std::set<std::string>{".", "..", "lo", "eth0"}));
  EXPECT_EQ(read("/class/net/eth0/address"), "02:00:00:00:00:09\n");
  EXPECT_EQ(read("/class/net/eth0/flags"), "0x1003\n");
  EXPECT_EQ(read("/class/net/lo/speed"), "error 22");
  EXPECT_EQ(read("/class/net/lo/mtu"), "65536\n");
}

}  // namespace
}  // namespace linux
}  // namespace husk
