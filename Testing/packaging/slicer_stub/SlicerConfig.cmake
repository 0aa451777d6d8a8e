# Stands for an installed Slicer: just enough to configure and install the extension with a bare CMake. The two macros copy
# what the real ones copy, to the same places; they do not compile.
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "lib")
