// The table. Add a program here if its start-up opens files that no DT_NEEDED names.
#include "image/rootfs/recipes.h"

#include <fnmatch.h>

#include <algorithm>

namespace husk::image {

std::span<const Recipe> recipes() {
  static const std::vector<const char*> kPythonWithout = {"*/config-3*",  "*/test",      "*/tests",   "*/idlelib",    "*/idle_test",
                                                          "*/turtledemo", "*/ensurepip", "*/lib2to3", "*/LICENSE.txt"};
  static const std::vector<Recipe> kRecipes = {
      {"python3*", nullptr, {"/usr/lib/{name}"}, kPythonWithout, false, "the standard library of Python"},
      {nullptr, "libpython3*", {"/usr/lib/python3.[0-9]*"}, kPythonWithout, false, "the standard library of Python"},
      {"perl*",
       nullptr,
       {"/usr/lib/x86_64-linux-gnu/perl*", "/usr/share/perl*", "/etc/perl"},
       {"*.pod", "*.h", "*.a", "*.ld"},
       false,
       "Perl's modules"},
      {"lua*", nullptr, {"/usr/share/lua/*", "/usr/lib/x86_64-linux-gnu/lua/*"}, {}, false, "Lua's modules"},
      {"luajit*", nullptr, {}, {}, true, "compiles at run time"},
      {"pypy3*", nullptr, {}, {}, true, "compiles at run time"},
      {"openssl", nullptr, {"/usr/lib/x86_64-linux-gnu/ossl-modules", "/usr/lib/x86_64-linux-gnu/engines-3"}, {}, false, "OpenSSL's providers"},
      {nullptr, "libcrypto.so*", {"/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf"}, {}, false, "OpenSSL's configuration"},
      // OpenSSL looks for one file of all roots and for one file each, named by its hash; Debian has the first under another name.
      {nullptr,
       "libcrypto.so*",
       {"/etc/ssl/certs/ca-certificates.crt"},
       {},
       false,
       "certificates",
       {{"/usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"}}},
      {nullptr, "libgnutls.so*", {"/etc/ssl/certs/ca-certificates.crt"}, {}, false, "certificates"},
      {nullptr,
       "libtinfo.so*",
       {"/lib/terminfo/x/xterm*", "/lib/terminfo/s/screen*", "/lib/terminfo/t/tmux*", "/lib/terminfo/l/linux", "/lib/terminfo/v/vt100",
        "/lib/terminfo/d/dumb"},
       {},
       false,
       "terminal descriptions"},
      {nullptr, "libmagic.so*", {"/usr/share/misc/magic.mgc", "/usr/lib/file/magic.mgc"}, {}, false, "magic numbers"},
      {nullptr, "libc.so.6", {"/etc/services", "/etc/protocols", "/etc/gai.conf"}, {}, false, "names of services and protocols"},
      {nullptr, "libc.so.6", {"/usr/lib/locale/C.utf8"}, {}, false, "the C.UTF-8 locale"},
      // Logs go where the machine's output goes, as in docker's image: a log file would only fill the memory.
      {"nginx",
       nullptr,
       {"/etc/nginx", "/usr/share/nginx", "/usr/lib/nginx/modules", "/var/www/html/index.nginx-debian.html", "/var/lib/nginx", "/var/log/nginx"},
       {"/var/lib/nginx/*", "/var/log/nginx/*"},
       false,
       "configuration and modules of nginx",
       {{"/var/log/nginx/access.log", "/dev/stdout"}, {"/var/log/nginx/error.log", "/dev/stderr"}}},
      {"lighttpd",
       nullptr,
       {"/etc/lighttpd", "/usr/lib/lighttpd", "/usr/share/lighttpd", "/var/www/html/index.lighttpd.html", "/var/cache/lighttpd", "/var/log/lighttpd"},
       {"/var/cache/lighttpd/*/*", "/var/log/lighttpd/*"},
       false,
       "modules of lighttpd; its own configuration runs programs, so name another with -f",
       {{"/var/log/lighttpd/error.log", "/dev/stderr"}}},
      {"node*", "libnode.so*", {"/usr/share/nodejs"}, {"*.md", "*.ts", "*.map"}, true, "V8 compiles at run time"},
      {"java",
       "libjli.so*",
       {"{directory}/../lib", "{directory}/../conf", "{directory}/../release"},
       {"*/src.zip", "*/*.diz"},
       true,
       "the JVM compiles at run time"},
  };
  return kRecipes;
}

bool path_matches(const std::string& path, const std::vector<const char*>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const char* pattern) { return fnmatch(pattern, path.c_str(), 0) == 0; });
}

}  // namespace husk::image
