# The tests that ctest runs: C programs against the library, then the programs of c_examples.
include(CheckCSourceRuns)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

set(test_data "${PROJECT_SOURCE_DIR}/tests/data")

# The sanitizers see memory that the library takes from malloc: leaks, double frees, and what the C side touches.
set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
set(CMAKE_REQUIRED_FLAGS "-fsanitize=address,undefined")
check_c_source_runs("int main(void) { return 0; }" MANTLE_SANITIZERS_WORK)
unset(CMAKE_REQUIRED_FLAGS)

# add_c_test(name source library option...): one executable that gets the folder of test data.
function(add_c_test name source library)
  add_executable(${name} "${source}")
  target_link_libraries(${name} PRIVATE ${library} mantle_strict_c m)
  target_compile_options(${name} PRIVATE ${ARGN})
  if(ARGN)
    target_link_options(${name} PRIVATE ${ARGN})
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
  add_test(NAME ${name} COMMAND ${name} "${test_data}")
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()

file(GLOB c_tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/c/test_*.c")
foreach(source IN LISTS c_tests)
  get_filename_component(name "${source}" NAME_WE)
  add_c_test(${name} "${source}" mantle::mantle)
  add_c_test(${name}_static "${source}" mantle::mantle_static)
  if(MANTLE_SANITIZERS_WORK)
    add_c_test(${name}_sanitized "${source}" mantle::mantle -g ${sanitizers})
    set_tests_properties(${name}_sanitized PROPERTIES ENVIRONMENT "ASAN_OPTIONS=detect_leaks=1")
  endif()
endforeach()

file(GLOB program_tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/programs/test_*.py")
foreach(source IN LISTS program_tests)
  get_filename_component(name "${source}" NAME_WE)
  add_test(NAME programs_${name} COMMAND "${Python3_EXECUTABLE}" "${source}")
  set_tests_properties(
    programs_${name}
    PROPERTIES TIMEOUT 900
               ENVIRONMENT
               "MANTLE_BUILD=${PROJECT_BINARY_DIR};CC=${CMAKE_C_COMPILER};PYTHONDONTWRITEBYTECODE=1")
endforeach()
