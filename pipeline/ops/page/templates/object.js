"use strict";
/* Shows the Gaussians that the next script hands over. */
async function splat({ spz, camera }) {
  const element = document.getElementById("splat");
  try {
    await showSplat(element, Uint8Array.from(atob(spz), (letter) => letter.charCodeAt(0)), camera);
  } catch (error) {
    element.textContent = `This browser cannot draw the Gaussians: ${error.message}`;
  }
}
