// What Debian's minisign wrote: `minisign -G -W`, and the file "from kAI\n" signed in both forms with `-t 'release 1'`.
// The key signs nothing else.
#pragma once

namespace kai::package {

inline constexpr const char* kMessage = "from kAI\n";
inline constexpr const char* kPublicLine = "RWQNF6fsJcM0SKL6xgdpmyMnRlUcKXIF39rwp+xPJR6fEjH1yqR5tY38";
inline constexpr const char* kPublicFile =
    "untrusted comment: minisign public key 4834C325ECA7170D\n"
    "RWQNF6fsJcM0SKL6xgdpmyMnRlUcKXIF39rwp+xPJR6fEjH1yqR5tY38\n";
inline constexpr const char* kSecretFile =
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADRen7CXDNEhGfSkRy6zNP3dQqIS0YPznIFePTuwW3W"
    "O1TEzSW2FQHKL6xgdpmyMnRlUcKXIF39rwp+xPJR6fEjH1yqR5tY38AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
inline constexpr const char* kHashedSignature =
    "untrusted comment: signature from minisign secret key\n"
    "RUQNF6fsJcM0SPQYOQ02OaCuJb8IchpXdV/Ma4n7nI9i4Jtvd51HURZplpjREtHIbQRrQOOd1hV2W9l/yV6MOzT4eKiCAT+yqQA=\n"
    "trusted comment: release 1\n"
    "pSDLY8f2TOFrR5ZjR808srfGo+IspJf5mHSmFk94ntrAfBAmrMVjmrsA3Z7NqKfOXxNxg+4gbgkqjiQdwckwAA==\n";
inline constexpr const char* kLegacySignature =
    "untrusted comment: signature from minisign secret key\n"
    "RWQNF6fsJcM0SHopvZ/bko5GEORpwr3XoZIR6tmpO/o5b9Y1IIy28KEQUBfP3wmKPKHcHJ6Tv/gAoNcyBTlnCqURMSypxBC3mQ8=\n"
    "trusted comment: release 1\n"
    "Vzix/8rJlCUqEyfNEhXLyfCuNN3STQRvuJRz2DodA8CYIW2qQp7pqccB+fd8PJejWZ9QryLIMWQ3ZedbEVzdBg==\n";

}  // namespace kai::package
