// The specification's words for the enumerations of policies/manifest.h, in its order, and what follows from `entry`.
// Internal to policies/manifest*.cc and compile.cc.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "policies/manifest.h"
#include "policies/manifest_fields.h"

namespace kai::manifest {

template <typename Enum, std::size_t size>
using NameTable = std::array<std::pair<std::string_view, Enum>, size>;

inline constexpr NameTable<Persona, 6> kPersonas = {{{"assistant", Persona::kAssistant},
                                                     {"specialist", Persona::kSpecialist},
                                                     {"guardian", Persona::kGuardian},
                                                     {"orchestrator", Persona::kOrchestrator},
                                                     {"utility", Persona::kUtility},
                                                     {"companion", Persona::kCompanion}}};
inline constexpr NameTable<MemoryType, 3> kMemoryTypes = {
    {{"volatile", MemoryType::kVolatile}, {"persistent", MemoryType::kPersistent}, {"hybrid", MemoryType::kHybrid}}};
inline constexpr NameTable<MemoryBackend, 4> kMemoryBackends = {{{"memory", MemoryBackend::kMemory},
                                                                 {"indexeddb", MemoryBackend::kIndexedDb},
                                                                 {"sqlite", MemoryBackend::kSqlite},
                                                                 {"redis", MemoryBackend::kRedis}}};
inline constexpr NameTable<Crypto, 3> kCryptos = {
    {{"ed25519", Crypto::kEd25519}, {"secp256k1", Crypto::kSecp256k1}, {"none", Crypto::kNone}}};
inline constexpr NameTable<std::string_view, 4> kActions = {
    {{"read", "read"}, {"write", "write"}, {"execute", "execute"}, {"delete", "delete"}}};
inline constexpr NameTable<DependencyType, 3> kDependencyTypes = {
    {{"module", DependencyType::kModule}, {"service", DependencyType::kService}, {"agent", DependencyType::kAgent}}};
inline constexpr NameTable<RuntimeKind, 4> kRuntimeKinds = {{{"node", RuntimeKind::kNode},
                                                             {"python", RuntimeKind::kPython},
                                                             {"native", RuntimeKind::kNative},
                                                             {"exec", RuntimeKind::kExec}}};
inline constexpr NameTable<Protocol, 2> kProtocols = {{{"none", Protocol::kNone}, {"runner", Protocol::kRunner}}};

template <typename Enum>
std::string_view name_of(Names<Enum> names, Enum value) {
  for (const auto& entry : names) {
    if (entry.second == value) return entry.first;
  }
  return {};
}

inline RuntimeKind kind_of_entry(std::string_view entry) {
  for (const std::string_view extension : {".ts", ".mts", ".js", ".mjs"}) {
    if (entry.ends_with(extension)) return RuntimeKind::kNode;
  }
  if (entry.ends_with(".py")) return RuntimeKind::kPython;
  if (entry.ends_with(".so")) return RuntimeKind::kNative;
  return RuntimeKind::kExec;
}

inline Runtime default_runtime(RuntimeKind kind) {
  return {.kind = kind, .protocol = kind == RuntimeKind::kExec ? Protocol::kNone : Protocol::kRunner};
}

}  // namespace kai::manifest
