# How each kind of code is compiled. A folder's CMakeLists.txt uses only these functions:
#   husk_host_library(NAME sources...)            host code
#   husk_host_program(NAME sources...)
#   husk_kernel_library(NAME sources...)          guest, ring 3; and NAME_hosted for unit tests, with sanitizers
#   husk_test(NAME SOURCES ... LIBRARIES ...)     GoogleTest, with sanitizers, label "unit"
#   husk_fuzzer(NAME SOURCES ... LIBRARIES ...)   libFuzzer target NAME (with -DHUSK_FUZZ=ON and clang), and a
#                                                 corpus replay under sanitizers that `make check` runs

set(HUSK_WARNINGS -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wconversion -Wno-sign-conversion -Werror)
set(HUSK_SANITIZERS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
# GCC's warnings are errors; another compiler is for fuzzing and analysis, and may have an opinion of its own.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(REMOVE_ITEM HUSK_WARNINGS -Werror)
endif()
# A fuzzer is guided by what the libraries under test do, not only by its own few lines.
if(HUSK_FUZZ)
  list(APPEND HUSK_SANITIZERS -fsanitize=fuzzer-no-link)
endif()

# Ring 3: general registers only, so that a system call needs to save no vector state; frame pointers for backtraces.
# -Oz gives 8 % less code than -Os. What runs often sets -O2 for itself.
set(HUSK_KERNEL_FLAGS
    -Oz -g -fPIE -fvisibility=hidden -mgeneral-regs-only -mno-red-zone -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -fno-omit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables
    -fno-stack-protector -fcf-protection=none -ffunction-sections -fdata-sections -fno-plt
    -fno-tree-loop-distribute-patterns -falign-functions=1 -falign-jumps=1 -falign-loops=1 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0 -DHUSK_GUEST=1)
# At link time identical functions become one and those with one caller vanish in it: 3 % less code, and 1.5 % more in one partition,
# where nothing crosses a border. Fuzzing compilers do without.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND HUSK_KERNEL_FLAGS -flto -fno-fat-lto-objects -flto-partition=one)
  set(CMAKE_AR ${CMAKE_CXX_COMPILER_AR})
  set(CMAKE_RANLIB ${CMAKE_CXX_COMPILER_RANLIB})
endif()
# Ring 0: small before fast; every instruction may be emulated.
set(HUSK_NUB_FLAGS
    -Os -g -fno-pic -fno-pie -mcmodel=kernel -mgeneral-regs-only -mno-red-zone -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-stack-protector
    -fcf-protection=none -ffunction-sections -fdata-sections -fno-tree-loop-distribute-patterns
    -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=0 -DHUSK_GUEST=1 -DHUSK_NUB=1)

function(husk_host_library name)
  add_library(${name} STATIC ${ARGN})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${HUSK_WARNINGS} -D_FILE_OFFSET_BITS=64)
  # The same library for tests, with sanitizers. Link NAME_hosted to use it.
  add_library(${name}_hosted STATIC EXCLUDE_FROM_ALL ${ARGN})
  target_include_directories(${name}_hosted PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name}_hosted PRIVATE ${HUSK_WARNINGS})
  target_compile_options(${name}_hosted PUBLIC ${HUSK_SANITIZERS})
  target_link_options(${name}_hosted PUBLIC ${HUSK_SANITIZERS})
endfunction()

# Links DEPENDENCIES (libraries made by these functions) to NAME, and their hosted forms to NAME_hosted.
function(husk_link name)
  foreach(dependency ${ARGN})
    target_link_libraries(${name} PUBLIC ${dependency})
    if(TARGET ${dependency}_hosted)
      target_link_libraries(${name}_hosted PUBLIC ${dependency}_hosted)
    else()
      target_link_libraries(${name}_hosted PUBLIC ${dependency})
    endif()
  endforeach()
endfunction()

function(husk_host_program name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${HUSK_WARNINGS} -D_FILE_OFFSET_BITS=64)
endfunction()

# Sources that end in _guest.cc or .S are left out of the hosted form; those in _hosted.cc out of the guest's.
function(husk_kernel_library name)
  set(guest ${ARGN})
  set(hosted ${ARGN})
  list(FILTER guest EXCLUDE REGEX "_hosted\\.cc$")
  list(FILTER hosted EXCLUDE REGEX "(_guest\\.cc|\\.S)$")
  add_library(${name} STATIC ${guest})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${HUSK_WARNINGS} $<$<COMPILE_LANGUAGE:CXX>:${HUSK_KERNEL_FLAGS}>)
  if(hosted)
    add_library(${name}_hosted STATIC EXCLUDE_FROM_ALL ${hosted})
    target_include_directories(${name}_hosted PUBLIC ${CMAKE_SOURCE_DIR})
    target_compile_options(${name}_hosted PRIVATE ${HUSK_WARNINGS} -O1 -g)
    target_compile_options(${name}_hosted PUBLIC ${HUSK_SANITIZERS})
    target_link_options(${name}_hosted PUBLIC ${HUSK_SANITIZERS})
  endif()
endfunction()

function(husk_test name)
  cmake_parse_arguments(T "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} EXCLUDE_FROM_ALL ${T_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Werror -O1 -g ${HUSK_SANITIZERS})
  target_link_options(${name} PRIVATE ${HUSK_SANITIZERS})
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} GTest::gtest GTest::gtest_main)
  add_test(NAME unit/${name} COMMAND ${name})
  set_tests_properties(unit/${name} PROPERTIES LABELS unit TIMEOUT 120)
  if(NOT TARGET unit_tests)
    add_custom_target(unit_tests)
  endif()
  add_dependencies(unit_tests ${name})
endfunction()

# A command that runs machines, label "guest": skipped, and said to be, where the host cannot (GoogleTest says it for all of its tests then).
function(husk_machine_test name)
  add_test(NAME guest/${name} COMMAND ${ARGN})
  set_tests_properties(guest/${name} PROPERTIES LABELS guest TIMEOUT 300 SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
endfunction()

# SOURCES define LLVMFuzzerTestOneInput. The corpus is tests/fuzz/corpus/NAME/.
function(husk_fuzzer name)
  cmake_parse_arguments(T "" "" "SOURCES;LIBRARIES" ${ARGN})
  set(corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
  add_executable(${name}_replay EXCLUDE_FROM_ALL ${T_SOURCES} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cc)
  target_include_directories(${name}_replay PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name}_replay PRIVATE -Wall -Wextra -Werror -O1 -g ${HUSK_SANITIZERS})
  target_link_options(${name}_replay PRIVATE ${HUSK_SANITIZERS})
  target_link_libraries(${name}_replay PRIVATE ${T_LIBRARIES})
  add_test(NAME fuzz/${name} COMMAND ${name}_replay ${corpus})
  set_tests_properties(fuzz/${name} PROPERTIES LABELS unit TIMEOUT 120)
  if(NOT TARGET unit_tests)
    add_custom_target(unit_tests)
  endif()
  add_dependencies(unit_tests ${name}_replay)
  if(HUSK_FUZZ)
    add_executable(${name} EXCLUDE_FROM_ALL ${T_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_options(${name} PRIVATE -O1 -g -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${name} PRIVATE ${T_LIBRARIES})
    if(NOT TARGET fuzzers)
      add_custom_target(fuzzers)
    endif()
    add_dependencies(fuzzers ${name})
  endif()
endfunction()

option(HUSK_FUZZ "build libFuzzer targets (needs clang)" OFF)
find_package(GTest REQUIRED)
