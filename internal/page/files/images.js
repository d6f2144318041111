// Images of a message. The daemon takes PNG and JPEG; others are converted here, and large ones made
// smaller. Nothing is fetched.

const longest = 2048; // pixels of a side
const accepted = ["image/png", "image/jpeg"];

// read returns an image file as a data URL.
export async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "the image"} cannot be read as an image`);
  }
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && accepted.includes(file.type)) return url(file);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const type = file.type === "image/jpeg" ? file.type : "image/png";
  return url(await new Promise((resolve) => canvas.toBlob(resolve, type, 0.9)));
}

function url(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

const isImage = (file) => file.type.startsWith("image/");

// of returns the image files of a paste or a drop.
export function of(transfer) {
  return [...(transfer?.files ?? [])].filter(isImage);
}

// others returns the other files of a drop.
export function others(transfer) {
  return [...(transfer?.files ?? [])].filter((f) => !isImage(f));
}
