// Plans of real and made-up programs, and the file systems made of them.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "image/elf/view.h"
#include "image/rootfs/erofs.h"
#include "image/rootfs/plan.h"

namespace husk::image {
namespace {

class RootfsTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text, mode_t mode = 0755) {
    std::string path = directory_.path() + "/" + name;
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
    return path;
  }
  void compile(const std::string& arguments) {
    std::string command = "cd " + directory_.path() + " && cc " + arguments;
    ASSERT_EQ(system(command.c_str()), 0) << command;
  }
  static std::string error_of(const PlanRequest& request) {
    try {
      make_plan(request);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  TemporaryDirectory directory_;
};

TEST_F(RootfsTest, dynamic_program_brings_linker_libraries_and_the_names_they_are_found_by) {
  Plan plan = make_plan({"/bin/cat", {"-n"}, {}, {}});
  EXPECT_EQ(plan.program, "/bin/cat");
  EXPECT_EQ(plan.arguments, (std::vector<std::string>{"/bin/cat", "-n"}));
  for (const char* path : {"/bin/cat", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/etc/passwd", "/tmp", "/proc", "/dev",
                           "/lib/x86_64-linux-gnu/libgcc_s.so.1"}) {
    EXPECT_TRUE(plan.tree.contains(path)) << path;
  }
}

TEST_F(RootfsTest, all_missing_libraries_are_named_at_once) {
  compile("-shared -o libone.so -x c /dev/null -Wl,-soname,libhusk-one.so && cc -shared -o libtwo.so -x c /dev/null -Wl,-soname,libhusk-two.so");
  write("p.c", "int main(void) { return 0; }");
  compile("-o p p.c -Wl,--no-as-needed libone.so libtwo.so");
  std::string error = error_of({directory_.path() + "/p", {}, {}, {}});
  EXPECT_NE(error.find("2 libraries are missing: libhusk-one.so"), std::string::npos) << error;
  EXPECT_NE(error.find("libhusk-two.so"), std::string::npos) << error;
}

TEST_F(RootfsTest, origin_and_rpath_of_the_loading_object_are_followed) {
  mkdir((directory_.path() + "/lib").c_str(), 0755);
  compile(
      "-shared -o lib/libinner.so -x c /dev/null -Wl,-soname,libinner.so && cc -shared -o lib/libouter.so -x c /dev/null -Wl,--no-as-needed -x none "
      "lib/libinner.so -Wl,-soname,libouter.so");
  write("p.c", "int main(void) { return 0; }");
  compile("-o old p.c -Wl,--no-as-needed,--disable-new-dtags,-rpath,'$ORIGIN/lib' -Llib -l:libouter.so -Wl,-rpath-link,lib");
  Plan plan = make_plan({directory_.path() + "/old", {}, {}, {}});
  EXPECT_TRUE(plan.tree.contains(directory_.path() + "/lib/libouter.so"));
}

TEST_F(RootfsTest, library_path_of_the_environment_is_searched) {
  mkdir((directory_.path() + "/lib").c_str(), 0755);
  compile("-shared -o lib/libhusk-three.so -x c /dev/null -Wl,-soname,libhusk-three.so");
  write("p.c", "int main(void) { return 0; }");
  compile("-o p p.c -Wl,--no-as-needed lib/libhusk-three.so");
  EXPECT_NE(error_of({directory_.path() + "/p", {}, {}, {}}), "");
  EXPECT_EQ(error_of({directory_.path() + "/p", {}, {"LD_LIBRARY_PATH=" + directory_.path() + "/lib"}, {}}), "");
}

TEST_F(RootfsTest, script_becomes_its_interpreter) {
  std::string script = write("script", "#!/bin/sh -e\necho hello\n");
  Plan plan = make_plan({script, {"x"}, {}, {}});
  EXPECT_EQ(plan.program, "/bin/sh");
  EXPECT_EQ(plan.arguments, (std::vector<std::string>{"/bin/sh", "-e", script, "x"}));
  EXPECT_TRUE(plan.tree.contains(script));
  std::string missing = write("missing", "#!/no/such/interpreter\n");
  EXPECT_NE(error_of({missing, {}, {}, {}}).find("its interpreter is missing: /no/such/interpreter"), std::string::npos);
}

TEST_F(RootfsTest, bad_programs_get_one_clear_line) {
  EXPECT_EQ(error_of({"/no/such/file", {}, {}, {}}), "/no/such/file: no such file");
  EXPECT_EQ(error_of({"husk-no-such-program", {}, {}, {}}), "husk-no-such-program: no such program in PATH");
  EXPECT_EQ(error_of({"/etc", {}, {}, {}}), "/etc: is not a regular file");
  std::string text = write("text", "hello");
  EXPECT_EQ(error_of({text, {}, {}, {}}), text + ": is not an ELF file; husk runs x86-64 Linux programs");
}

TEST_F(RootfsTest, programs_of_the_network_find_what_they_open_by_name) {
  Plan plan = make_plan({"/bin/cat", {}, {}, {}});
  for (const char* path : {"/etc/services", "/etc/protocols", "/var/run", "/etc/nsswitch.conf", "/etc/resolv.conf"}) {
    EXPECT_TRUE(plan.tree.contains(path)) << path;
  }
  if (access("/usr/sbin/nginx", X_OK) != 0) GTEST_SKIP() << "nginx is not installed";
  plan = make_plan({"/usr/sbin/nginx", {}, {}, {}});
  for (const char* path :
       {"/etc/nginx/nginx.conf", "/etc/nginx/sites-enabled/default", "/etc/nginx/mime.types", "/var/lib/nginx", "/var/log/nginx"}) {
    EXPECT_TRUE(plan.tree.contains(path)) << path;
  }
  EXPECT_EQ(plan.tree.nodes().at("/var/log/nginx/access.log").content, "/dev/stdout");
  for (const auto& [path, node] : plan.tree.nodes()) EXPECT_FALSE(path.starts_with("/var/lib/nginx/")) << path;
}

TEST_F(RootfsTest, with_adds_files_and_directories) {
  std::string file = write("data", "1", 0644);
  mkdir((directory_.path() + "/d").c_str(), 0755);
  write("d/below", "2", 0600);
  Plan plan = make_plan({"/bin/cat", {}, {}, {{file, "/srv/"}, {directory_.path() + "/d", "/opt/d"}, {file, ""}}});
  EXPECT_TRUE(plan.tree.contains("/srv/data"));
  EXPECT_TRUE(plan.tree.contains("/opt/d/below"));
  EXPECT_TRUE(plan.tree.contains(file));
  EXPECT_NE(error_of({"/bin/cat", {}, {}, {{file, "relative"}}}).find("must be absolute"), std::string::npos);
  EXPECT_NE(error_of({"/bin/cat", {}, {}, {{"/no/such", ""}}}).find("--with /no/such"), std::string::npos);
}

TEST_F(RootfsTest, identity_sees_a_changed_file) {
  std::string file = write("data", "1", 0644);
  PlanRequest request{"/bin/cat", {}, {}, {{file, ""}}};
  Digest before = identity(make_plan(request));
  EXPECT_EQ(before, identity(make_plan(request)));
  usleep(20000);
  write("data", "2", 0644);
  EXPECT_NE(before, identity(make_plan(request)));
}

TEST_F(RootfsTest, erofs_is_the_same_when_repeated_and_keeps_times_and_alignment) {
  std::string file = write("data", std::string(10000, 'x'), 0644);
  timespec times[2] = {{1000, 0}, {1234567, 0}};
  utimensat(0, file.c_str(), times, 0);
  Plan plan = make_plan({"/bin/cat", {}, {}, {{file, "/data"}}});
  TemporaryDirectory one, two;
  auto first = MappedFile::open(write_erofs(plan.tree, {}, one.path()));
  auto second = MappedFile::open(write_erofs(plan.tree, {}, two.path()));
  EXPECT_TRUE(std::equal(first.bytes().begin(), first.bytes().end(), second.bytes().begin(), second.bytes().end()));
  // The file's bytes lie in one piece at a page.
  std::string_view bytes = as_text(first.bytes());
  size_t at = bytes.find(std::string(10000, 'x'));
  ASSERT_NE(at, std::string_view::npos);
  EXPECT_EQ(at % kPageSize, 0u);
  std::string dump = "dump.erofs --path=/data " + one.path() + "/root.erofs | grep -q 1970-01-15";
  EXPECT_EQ(system(dump.c_str()), 0);
  EXPECT_EQ(system(("fsck.erofs " + one.path() + "/root.erofs >/dev/null").c_str()), 0);
}

}  // namespace
}  // namespace husk::image
