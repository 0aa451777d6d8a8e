"""What a person sees: the panel and its sections, from the top down.

| file | what it holds |
| --- | --- |
| `Panel` | its life, and the parameter node's choices; `Choices` are those of one moment |
| `InputSection` | volume, model and ROI, and whether they fit |
| `ModelPicker` | the list of models; `ModelCard` the card of the chosen one |
| `AddModelButton` | a model package added, its progress, Cancel |
| `DevicePicker` | where the network is computed |
| `MirrorCheckBox` | segmenting the image mirrored too |
| `RunSection` | Segment, Cancel, and how far the job is |
| `LicenceQuestion` | whether a person accepts a model's licence |
| `TorchInstallation` | PyTorch offered and installed |
| `ResultSection` | surfaces, volumes and notices of a result |
| `CorrectSection` | one tool at a time: `EditorSection`, `SensitivitySection`, `ReviewSection` |
| `PlacePicture` | small pictures of places to review |
| `LearnSection` | save cases, fine-tune, compare |
| `BatchSection` | many images |
| `OutputsSection` | further outputs, under More |
| `SetupSection` | the set-up check; `SetupCheck` is what it finds |
| `PanelText` | how texts are shown |
| `WheelGuard` | the mouse wheel does not change sliders |
"""
