# Builds the library with cargo and offers it as the targets mantle::mantle and mantle::mantle_static.
# The files are put in order under <build>/lib: libmantle.so, the link of its soname, libmantle.a.

find_program(CARGO_PROGRAM cargo HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin")
if(NOT CARGO_PROGRAM)
  message(FATAL_ERROR "cargo was not found: install Rust ${MANTLE_RUST_VERSION} or newer")
endif()

# `cargo test` and this build share one target folder, so nothing is compiled twice.
if(DEFINED ENV{CARGO_TARGET_DIR})
  set(default_target_folder "$ENV{CARGO_TARGET_DIR}")
else()
  set(default_target_folder "${PROJECT_SOURCE_DIR}/target")
endif()
set(MANTLE_CARGO_TARGET_DIR "${default_target_folder}" CACHE PATH "cargo's target folder")
get_filename_component(cargo_target_folder "${MANTLE_CARGO_TARGET_DIR}" ABSOLUTE
                       BASE_DIR "${PROJECT_SOURCE_DIR}")

set(MANTLE_LIBRARY_DIR "${PROJECT_BINARY_DIR}/lib")
set(shared_name "${CMAKE_SHARED_LIBRARY_PREFIX}mantle${CMAKE_SHARED_LIBRARY_SUFFIX}")
set(static_name "${CMAKE_STATIC_LIBRARY_PREFIX}mantle${CMAKE_STATIC_LIBRARY_SUFFIX}")
file(MAKE_DIRECTORY "${MANTLE_LIBRARY_DIR}")

# Always runs: cargo itself knows what is up to date.
add_custom_target(
  mantle_cargo ALL
  COMMAND "${CARGO_PROGRAM}" build --release --lib --target-dir "${cargo_target_folder}"
  COMMAND "${CMAKE_COMMAND}" -E copy_if_different "${cargo_target_folder}/release/${shared_name}"
          "${cargo_target_folder}/release/${static_name}" "${MANTLE_LIBRARY_DIR}"
  COMMAND "${CMAKE_COMMAND}" -E create_symlink "${shared_name}"
          "${MANTLE_LIBRARY_DIR}/${shared_name}.${MANTLE_SOVERSION}"
  BYPRODUCTS "${MANTLE_LIBRARY_DIR}/${shared_name}" "${MANTLE_LIBRARY_DIR}/${static_name}"
  WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
  COMMENT "Building libmantle with cargo"
  USES_TERMINAL VERBATIM)

find_package(Threads REQUIRED)

add_library(mantle SHARED IMPORTED GLOBAL)
set_target_properties(
  mantle PROPERTIES IMPORTED_LOCATION "${MANTLE_LIBRARY_DIR}/${shared_name}"
                    IMPORTED_SONAME "${shared_name}.${MANTLE_SOVERSION}"
                    INTERFACE_INCLUDE_DIRECTORIES "${PROJECT_SOURCE_DIR}/include")
add_dependencies(mantle mantle_cargo)
add_library(mantle::mantle ALIAS mantle)

add_library(mantle_static STATIC IMPORTED GLOBAL)
set_target_properties(
  mantle_static
  PROPERTIES IMPORTED_LOCATION "${MANTLE_LIBRARY_DIR}/${static_name}"
             INTERFACE_INCLUDE_DIRECTORIES "${PROJECT_SOURCE_DIR}/include"
             # What Rust's standard library needs from the system.
             INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m;gcc_s")
add_dependencies(mantle_static mantle_cargo)
add_library(mantle::mantle_static ALIAS mantle_static)
